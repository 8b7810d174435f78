"""Gauss-Newton inside a random subspace: small, explicit, and with stored rows per pair (`docs/design.md`, 4).

    M = Π [ (1/R) Σ Jᵀ(∇²_S L)J ] Πᵀ + N(δ + λ)·I,      rows_n = Π [∇Pos_n, ∇Neg_n]  (2, K)

M is exact, no labels being sampled: J Πᵀ is a push along the K rows of Π, which the pairs' rows share, and Jᵀ pulls it
back. Sums over batches add up, so shards can make them. With the rows on disk a thousand queries cost one pass over
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.dense import cholesky
from ecif.curvature.projection import Projection
from ecif.linearise import pull, push
from ecif.objective import Batches, Objective
from ecif.parameters import Params
from ecif.roles import Negative
from ecif.solve.solution import OnState, Solution, State
from ecif.traceback import relative_influence


@dataclass(frozen=True)
class ProjectedBatch:
    """rows (B, 2, K) float64, what is stored per pair: Π∇Pos_n and Π∇Neg_n; curvature (K, K), the batch's part of M."""

    rows: Tensor
    curvature: Tensor


def project_batch(
    objective: Objective, params: Params, batch: Batch, projection: Projection, mode: Negative = "exact"
) -> ProjectedBatch:
    """Everything that one batch contributes, from a push and a pull along K directions, some at a time."""
    rows, M, loss = [], [], objective.loss
    S, back = pull(objective, params, batch)
    for directions in projection.row_chunks():
        _, dS = push(objective, params, batch, directions.to(S.dtype))
        rows.append(torch.stack([loss.positive_derivative(S, dS), loss.negative_derivative(S, dS, mode)]))  # (2, k, B)
        M.append(projection.down(back(loss.curvature(S, dS))))
    part = torch.cat(M)
    return ProjectedBatch(torch.cat(rows, 1).permute(2, 0, 1).double(), (part + part.mT) / 2)


@dataclass(frozen=True)
class Projected:
    """M factorised; as a `Curvature` it answers Πᵀ M⁻¹ Π · rhs, the influence with θ confined to the subspace."""

    projection: Projection
    factor: Tensor

    @classmethod
    def finish(
        cls, objective: Objective, projection: Projection, curvatures: Iterable[Tensor], damping: float = 0.0
    ) -> Projected:
        """From the batches' parts of M, in any grouping, over all R partitions.

        Raises:
            NegativeCurvature: N(δ + λ) is lost in rounding.
            ValueError: N(δ + λ) is 0.
        """
        ridge = objective.ridge(damping)
        if not ridge > 0:
            raise ValueError("projected needs l2 or damping above 0")
        M = ridge * torch.eye(projection.size, dtype=torch.float64, device=projection.rest.device)
        for part in curvatures:
            M = M + part / objective.partitions
        return cls(projection, cholesky(M))

    @classmethod
    def of(
        cls,
        objective: Objective,
        params: Params,
        batches: Batches,
        *,
        damping: float = 0.0,
        side: int = 16,
        seed: int = 0,
    ) -> Projected:
        """In one pass, keeping no rows."""
        projection = Projection.draw(params, side, seed)
        parts = (project_batch(objective, params, batch, projection).curvature for batch in batches())
        return cls.finish(objective, projection, parts, damping)

    def inside(self, coordinates: Tensor) -> Tensor:
        """M⁻¹·c for (..., K)."""
        flat = coordinates.double().reshape(-1, coordinates.shape[-1])
        return torch.cholesky_solve(flat.mT, self.factor).mT.reshape(coordinates.shape)

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """Πᵀ M⁻¹ Π·rhs for rhs (k, P)."""
        x = self.projection.up(self.inside(self.projection.down(rhs)))
        exact = torch.zeros(rhs.shape[0], dtype=torch.float64, device=rhs.device)
        return Solution(x, 0, exact, None, converged=True)

    def task_influence(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """Both roles' w·∇ along every gradient (q, P), (q, n, 2), from stored rows (n, 2, K): they sum to IS_n."""
        return torch.einsum("nrk,qk->qnr", rows.double(), self.inside(self.projection.down(gradients)))

    def self_influence(self, rows: Tensor) -> Tensor:
        """g_nᵀ Πᵀ M⁻¹ Π g_n with g_n = ∇(Pos_n + Neg_n), (n,), from stored rows (n, 2, K)."""
        both = rows.double().sum(1)
        value: Tensor = torch.linalg.vecdot(both, self.inside(both))
        return value

    def relative_influence(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """(q, n), as `traceback.relative_influence` with every vector taken inside the subspace."""
        return relative_influence(-self.inside(rows), self.projection.down(gradients))
