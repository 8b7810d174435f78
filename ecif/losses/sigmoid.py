"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343): every cell of the batch is a decision of its own.

    L = Σ_{n,m} −log sigmoid(z_nm S[n,m]),      S[n,m] = s·u_n·v_m + b,  z = 1 on the diagonal, −1 elsewhere.

B times what the paper prints, which is the mean per pair. No pair shares a denominator with another, so what leaves
with pair n are plainly the cells of its row and its column, each once,

    Pos_n = −log sigmoid(S[n,n]),      Neg_n = Σ_{k≠n} ( −log sigmoid(−S[k,n]) − log sigmoid(−S[n,k]) ),

and nothing of it is a first order: both forms of the negative role are the same. A cell off the diagonal belongs to two
pairs and is half of each one's own loss. With P = sigmoid(S) (0 where an entry is excluded),

    ∂L/∂S = P − I,      ∇²_S L = diag(P (1 − P)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.losses.base import Loss, RemovedTerms
from ecif.roles import Negative, check_mode, own_terms, softplus


class Sigmoid(Loss):
    """Balanced by its bias, without which most of the loss would be that of the many negatives."""

    name = "sigmoid"
    largest_scale = 1e4  # published models have 100 to 120, past CLIP's cap, and a bias that goes with their scale
    biased = True
    lonely = True
    shared = 0.5

    def row_loss(self, S: Tensor) -> Tensor:
        """Half of the cells of the row."""
        return 0.5 * _cells(S).sum(-1)

    def positive(self, S: Tensor) -> Tensor:
        """The pair's own cell."""
        return softplus(-S.diagonal(dim1=-2, dim2=-1))

    def negative(self, S: Tensor, mode: Negative = "exact") -> Tensor:
        """All other cells of its row and its column."""
        check_mode(mode)
        off = _cells(S).masked_fill(own_terms(S), 0.0)
        return off.sum(-1) + off.sum(-2)

    def positive_derivative(self, S: Tensor, dS: Tensor) -> Tensor:
        """−(1 − P) dS on the diagonal."""
        return -torch.sigmoid(-S.diagonal(dim1=-2, dim2=-1)) * dS.diagonal(dim1=-2, dim2=-1)

    def negative_derivative(self, S: Tensor, dS: Tensor, mode: Negative = "exact") -> Tensor:
        """P dS off the diagonal, along rows and columns."""
        check_mode(mode)
        moved = torch.sigmoid(S).masked_fill(own_terms(S), 0.0) * dS
        return moved.sum(-1) + moved.sum(-2)

    def removal(self, S: Tensor, removed: Tensor) -> Tensor:
        """The cells of all rows and columns of the set, each once."""
        return torch.where(removed[:, None] | removed, _cells(S), 0.0).sum()

    def gradient(self, S: Tensor) -> Tensor:
        """P − I, which keeps its digits where P rounds to 1."""
        own = own_terms(S)
        return torch.sigmoid(torch.where(own, -S, S)) * torch.where(own, -1.0, 1.0).to(S.dtype)

    def curvature(self, S: Tensor, dS: Tensor) -> Tensor:
        """P (1 − P) dS."""
        return torch.sigmoid(S) * torch.sigmoid(-S) * dS

    def sample_root(self, S: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Random signs times √(P (1 − P)): with labels drawn from P, most of which would be 0, few draws would have
        the same covariance and much larger fourth moments."""
        # Drawn on the CPU, so that they do not depend on the device.
        signs = 2 * torch.randint(2, (k, *S.shape), generator=generator, dtype=torch.int8).to(S) - 1
        return signs.mul_(_deviation(S))

    def removed_terms(self, S: Tensor, mode: Negative) -> RemovedTerms:
        """Without a softmax; the own cell is half in its row and half in its column."""
        check_mode(mode)
        cells = self.gradient(S)
        cells = torch.where(own_terms(S), 0.5 * cells, cells)
        nothing = torch.zeros_like(cells)
        return RemovedTerms(torch.stack([nothing, nothing], -3), torch.stack([cells, nothing], -3))

    def outputs(self, B: int) -> int:
        """Every cell z S."""
        return B * B

    def mixed_outputs(self, S: Tensor, mixing: Tensor) -> Tensor:
        """The sign z of an output cancels in the second moments that are wanted of it."""
        return mixing.view(-1, *S.shape) * _deviation(S)


def _cells(S: Tensor) -> Tensor:
    """−log sigmoid(z S), (..., B, B)."""
    return softplus(torch.where(own_terms(S), -S, S))


def _deviation(S: Tensor) -> Tensor:
    """√(P (1 − P)); the factors' roots first, whose product may be too small for a root."""
    return (0.5 * (torch.nn.functional.logsigmoid(S) + torch.nn.functional.logsigmoid(-S))).exp()
