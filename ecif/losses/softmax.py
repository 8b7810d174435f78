"""The softmax loss: cross-entropy along rows and along columns (Radford et al. 2021), its roles those of `roles`.

With p the softmax of S along rows and q along columns,

    L = Σ_n ( −log p[n,n] − log q[n,n] ),
    ∇²_S L · dS = p∘(dS − Σ_j p dS along the row) + q∘(dS − Σ_i q dS along the column).

For a label y drawn from p[k, :], ``onehot(y) − p[k, :]`` has covariance ``diag(p) − p pᵀ``: one draw per row and per
column has covariance ∇²_S L. (Labels from the model, never the observed ones: that would be the empirical Fisher.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif import roles
from ecif.losses.base import Loss, RemovedTerms
from ecif.roles import Negative, hardest_negatives, own_terms
from ecif.similarity import EXCLUDED


class Softmax(Loss):
    """A bias would cancel in every softmax, and a pair without negatives is certain."""

    name = "softmax"
    largest_scale = 100.0  # CLIP's own cap; left free, a full-batch fit drove s past 160 and diverged
    biased = False
    lonely = False
    shared = 0.0

    def row_loss(self, S: Tensor) -> Tensor:
        """−log p[n,n]."""
        return roles.own_loss(S)

    def positive(self, S: Tensor) -> Tensor:
        """−log p[n,n] − log q[n,n]: all of the pair's loss."""
        return roles.positive(S)

    def negative(self, S: Tensor, mode: Negative = "exact") -> Tensor:
        """Its place in the denominators of all others."""
        return roles.negative(S, mode)

    def positive_derivative(self, S: Tensor, dS: Tensor) -> Tensor:
        """See `roles`."""
        return roles.positive_derivative(S, dS)

    def negative_derivative(self, S: Tensor, dS: Tensor, mode: Negative = "exact") -> Tensor:
        """See `roles`."""
        return roles.negative_derivative(S, dS, mode)

    def removal(self, S: Tensor, removed: Tensor) -> Tensor:
        """See `roles.removal_loss`: the terms of a set do not add."""
        return roles.removal_loss(S, removed)

    def gradient(self, S: Tensor) -> Tensor:
        """p and q off the diagonal, and on it minus what they are there in sum, which keeps its digits where p[n,n]
        rounds to 1."""
        own = own_terms(S)
        total = torch.zeros_like(S)
        for dim in (-1, -2):
            off = S.softmax(dim).masked_fill(own, 0.0)
            total += off - torch.diag_embed(off.sum(dim))
        return total

    def curvature(self, S: Tensor, dS: Tensor) -> Tensor:
        """As above."""
        p, q = S.softmax(-1), S.softmax(-2)
        # Differences first: multiplied out, the digits that cancel are those of the whole dS.
        rows = (dS - (p * dS).sum(-1, keepdim=True)).mul_(p)
        columns = (dS - (q * dS).sum(-2, keepdim=True)).mul_(q)
        return rows.add_(columns)

    def sample_root(self, S: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """By labels drawn for every row and every column."""
        return _row_draws(S, k, generator) + _row_draws(S.mT, k, generator).mT

    def removed_terms(self, S: Tensor, mode: Negative) -> RemovedTerms:
        """Of every row as it is, and of the row without its hardest negative."""
        own, hardest = own_terms(S), hardest_negatives(S)
        p, rest = S.softmax(-1), S.masked_fill(hardest, EXCLUDED)
        both = torch.stack([p, rest.softmax(-1)], -3)
        if S.shape[-1] == 1:  # a lone pair pulls nothing
            return RemovedTerms(both, torch.zeros_like(both))
        easy = p.masked_fill(own | hardest, 0.0)
        easy = easy / (1 - easy) if mode == "exact" else easy
        logit = torch.where(hardest, S, 0.0).sum(-1) - rest.logsumexp(-1)
        hard = torch.sigmoid(logit) if mode == "exact" else torch.sigmoid(logit) * torch.sigmoid(-logit)
        return RemovedTerms(both, torch.stack([easy - own.to(S.dtype), torch.where(hardest, hard[..., None], 0.0)], -3))

    def outputs(self, B: int) -> int:
        """Every pair's margin f = log p/(1 − p) in its row and in its column."""
        return 2 * B

    def mixed_outputs(self, S: Tensor, mixing: Tensor) -> Tensor:
        """Of rows, then of columns."""
        B = S.shape[-1]
        rows, columns = _weighted_margins(S), _weighted_margins(S.mT)
        return mixing[:, :B, None] * rows + (mixing[:, B:, None] * columns).mT


def _row_draws(S: Tensor, k: int, generator: torch.Generator) -> Tensor:
    p = S.softmax(-1)
    # Drawn on the CPU in float64, so that the labels do not depend on the device.
    labels = torch.multinomial(p.double().cpu().flatten(0, -2), k, replacement=True, generator=generator)
    drawn = (-p).expand(k, *p.shape).clone()
    one = torch.ones((), dtype=p.dtype, device=p.device)
    return drawn.scatter_add_(-1, labels.T.to(S.device).view(k, *p.shape[:-1], 1), one.expand(k, *p.shape[:-1], 1))


def _weighted_margins(S: Tensor) -> Tensor:
    """√(p(1 − p))·∂f_n/∂S[n, :] in row n, (B, B), with f_n = S[n,n] − logsumexp_{j≠n} S[n,j]; 0 where a pair has no
    negatives, and where an entry is excluded."""
    own = own_terms(S)
    rest = S.masked_fill(own, EXCLUDED)
    margin = S.diagonal() - rest.logsumexp(-1)
    weight = (torch.sigmoid(margin) * torch.sigmoid(-margin)).sqrt()
    return weight[:, None] * (own.to(S) - rest.softmax(-1).masked_fill(own, 0.0))
