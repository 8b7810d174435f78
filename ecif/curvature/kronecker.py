"""The Gauss-Newton matrix of two linear heads by Kronecker factors: an inverse that costs a few passes.

For the head W (E × D) of either tower, with features x and pseudo-gradients Σ_k t̄_k x_kᵀ, t̄ = Jᵀξ at the un-normalised
embeddings for labels ξ sampled from the model (`Loss.sample_root`),

    H ≈ (Q_E ⊗ Q_D) diag(Λ) (Q_E ⊗ Q_D)ᵀ + N(δ + λ) I,      Λ[a, b] = E[(Q_Eᵀ (Σ_k t̄_k x_kᵀ) Q_D)[a, b]²],

Q_E and Q_D being the eigenvectors of Σ_k t̄_k t̄_kᵀ and Σ_k ‖t̄_k‖² x_k x_kᵀ: the factors of Martens and Grosse 2015 with
eigenvalues corrected as by George et al. 2018, of whole batches. A bias is the weight of a feature that is always 1.
The block between the heads is left out: conjugate gradients put that right; what is taken of every pair from here does
not (`docs/decisions/0025-what-a-solve-costs.md`).

Beside `ekfac.Ekfac`, which serves any model: nothing of size P is formed for a batch and its draws but once, a sample
of the batches will do, and 1/(Λ + ρ) comes as a sum of few outer products, which `per_pair` needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.heads import TOWERS, AtParams, stacked
from ecif.objective import Batches, Objective
from ecif.parameters import Params, flatten, unflatten
from ecif.solve.solution import OnState, Solution, State

SAMPLE = 128
"""Batches that the factors are made of, and labellings of them in all: where there are fewer, each has several."""

_MOST_TERMS = 8
_WELL_SUMMED = 0.1  # of the sum below; from there on more terms changed no score (decision 25)


class Terms(NamedTuple):
    """One head's inverse as Σ_r G_r ⊗ A_r: left (E, E) and right (D, D) orthonormal columns, along (r, E) and across
    (r, D) the diagonals of G_r and A_r in them. D counts the bias."""

    left: Tensor
    right: Tensor
    along: Tensor
    across: Tensor


@dataclass(frozen=True)
class Head:
    """left (E, E), right (D, D): orthonormal columns; eigenvalues (E, D): Λ, without ridge. All float64."""

    left: Tensor
    right: Tensor
    eigenvalues: Tensor

    def solve(self, gradients: Tensor, ridge: float) -> Tensor:
        """The inverse times gradients (k, E, D)."""
        inside = self.left.mT @ gradients @ self.right / (self.eigenvalues + ridge)
        return self.left @ inside @ self.right.mT

    def terms(self, ridge: float) -> Terms:
        """The inverse as a sum of as few products as give Σ Λ/(Λ + ρ) to a tenth, entry by entry, at most 8.

        Entries count as gradients do, by Λ: the singular value decomposition is of 1/(Λ + ρ) between the sums of Λ
        along both sides.
        """
        inverse = 1 / (self.eigenvalues + ridge)
        rows, columns = (self.eigenvalues.sum(dim) + ridge for dim in (1, 0))
        left, values, right = torch.linalg.svd(rows[:, None] * inverse * columns, full_matrices=False)
        along, across = (left * values).mT / rows, right / columns
        whole, sum_ = (self.eigenvalues * inverse).sum(), torch.zeros_like(inverse)
        count = 0
        for count in range(1, min(_MOST_TERMS, len(values)) + 1):
            sum_ = sum_ + along[count - 1, :, None] * across[count - 1]
            if float((self.eigenvalues * (sum_ - inverse).abs()).sum()) <= _WELL_SUMMED * float(whole):
                break
        return Terms(self.left, self.right, along[:count], across[:count])


@dataclass(frozen=True)
class Kronecker:
    """The finished curvature; build it by `Kronecker.of`.

    Attributes:
        heads: of `text` and of `image`.
        ridge: ρ = N(δ + λ).
        like: the parameters, for their names and shapes.
    """

    heads: dict[str, Head]
    ridge: float
    like: Params

    @classmethod
    @torch.no_grad()
    def of(
        cls, objective: Objective, params: Params, batches: Batches, *, damping: float = 0.0, seed: int = 0
    ) -> Kronecker:
        """From two passes over at most `SAMPLE` batches, the first ones: membership is random.

        Raises:
            ValueError: N(δ + λ) is 0, or these are no linear heads.
        """
        ridge = objective.ridge(damping)
        if not ridge > 0:
            raise ValueError("Kronecker factors need l2 or damping above 0")
        if not objective.closed_form(params):
            raise ValueError("Kronecker factors of this form are of linear heads")
        dtype = next(iter(params.values())).dtype
        moments: dict[tuple[str, str], Tensor] = {}
        for at, roots in _labelled(objective, params, batches, seed):
            for tower in TOWERS:
                x, t = at.side(tower).features.flatten(0, 1), at.cotangents(tower, roots)
                weighed, rows = x * t.square().sum((2, 3)).view(-1, 1), t.flatten(0, 2)
                for side, part in (("left", rows.mT @ rows), ("right", weighed.mT @ x)):
                    moments[tower, side] = moments.get((tower, side), torch.zeros_like(part.double())) + part
        bases = {place: torch.linalg.eigh(moment)[1] for place, moment in moments.items()}
        along: dict[str, Tensor] = {}
        pairs = 0.0
        # Other labels than those that chose the bases: along their own principal axes they would look too large.
        for at, roots in _labelled(objective, params, batches, seed + 1):
            pairs += len(roots) * at.S.shape[0] * at.S.shape[1]
            for tower in TOWERS:
                left, right = (bases[tower, side].to(dtype) for side in ("left", "right"))
                turned = (at.cotangents(tower, roots) @ left).permute(0, 2, 3, 1).flatten(1, 2)  # (G, k·E, B)
                rotated = turned @ (at.side(tower).features @ right)
                part = rotated.square().sum(0, dtype=torch.float64).view(len(roots), *left.shape[:1], -1).sum(0)
                along[tower] = along[tower] + part if tower in along else part
        # Averages over partitions: the sample stands for N pairs of one.
        heads = {
            tower: Head(bases[tower, "left"], bases[tower, "right"], along[tower] * (objective.n_pairs / pairs))
            for tower in TOWERS
        }
        return cls(heads, ridge, {name: tensor.detach() for name, tensor in params.items()})

    def tensors(self) -> dict[str, Tensor]:
        """What `of_tensors` makes it of again, to the same bits."""
        # Contiguous, as they are once written and read: products of another order of memory round otherwise.
        return {
            f"{tower}.{part}": getattr(head, part).contiguous()
            for tower, head in self.heads.items()
            for part in ("left", "right", "eigenvalues")
        }

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor], ridge: float, params: Params) -> Kronecker:
        """From what `tensors` gave, on the device of the parameters."""
        like = {name: tensor.detach() for name, tensor in params.items()}
        device = next(iter(like.values())).device
        parts = {name: tensor.to(device) for name, tensor in tensors.items()}
        heads = {
            tower: Head(*(parts[f"{tower}.{part}"] for part in ("left", "right", "eigenvalues"))) for tower in TOWERS
        }
        return cls(heads, ridge, like)

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """The approximation's inverse times rhs (k, P), in float64."""
        parts = unflatten(rhs.double(), {name: tensor.double() for name, tensor in self.like.items()})
        for tower, head in self.heads.items():
            weight, bias = f"{tower}.weight", f"{tower}.bias"
            if bias in parts:
                solved = head.solve(torch.cat([parts[weight], parts[bias][..., None]], -1), self.ridge)
                parts[weight], parts[bias] = solved[..., :-1], solved[..., -1]
            else:
                parts[weight] = head.solve(parts[weight], self.ridge)
        residual = torch.zeros(rhs.shape[0], dtype=torch.float64, device=rhs.device)
        return Solution(flatten(parts, leading=1), 0, residual, None, converged=True)

    def terms(self) -> dict[str, Terms]:
        """Of each head, in the dtype of the parameters: what `per_pair` takes."""
        dtype = next(iter(self.like.values())).dtype
        return {
            tower: Terms(*(tensor.to(dtype) for tensor in head.terms(self.ridge))) for tower, head in self.heads.items()
        }


def _labelled(objective: Objective, params: Params, batches: Batches, seed: int) -> Iterator[tuple[AtParams, Tensor]]:
    """The sample, in stacks, with draws (k, G, B, B) of covariance ∇²_S L."""
    first = next(iter(batches()))
    count = max(1, objective.n_pairs * objective.partitions // first.size)
    draws = -(-SAMPLE // min(SAMPLE, count))
    for place, stack in enumerate(stacked(islice(batches(), SAMPLE), draws)):
        at = AtParams.of(objective, params, stack)
        yield at, objective.loss.sample_root(at.S, draws, generator(seed, place))
