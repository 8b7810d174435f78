"""A curvature written out and factorised: direct, exact, for up to a few thousand parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.curvature.base import Matrix
from ecif.parameters import row_dot, size
from ecif.solve.conjugate_gradients import conjugate_gradients
from ecif.solve.solution import NegativeCurvature, OnState, Solution, State

LARGEST = 4096
"""Parameters up to which the matrix (134 MB then) is written out and per-pair answers are exact."""


def dense_matrix(matrix: Matrix, at_once: int = 256) -> Tensor:
    """H (P, P) float64, symmetrised, from its products with the identity.

    Raises:
        ValueError: more than `LARGEST` parameters.
    """
    P = size(matrix.params)
    if P > LARGEST:
        raise ValueError(f"{P} parameters are too many for a dense matrix; at most {LARGEST}")
    device = next(iter(matrix.params.values())).device
    identity = torch.eye(P, dtype=torch.float64, device=device)
    H = torch.cat([matrix.apply(rows) for rows in torch.split(identity, at_once)])
    return (H + H.mT) / 2


def cholesky(H: Tensor) -> Tensor:
    """The lower factor of H (P, P).

    Raises:
        NegativeCurvature: it is not positive definite.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(H)
    if int(failed):
        raise NegativeCurvature(float(torch.linalg.eigvalsh(H)[0]))
    return factor


@dataclass(frozen=True)
class Dense:
    """H (P, P) float64 with its Cholesky factor, and the range of its eigenvalues if known; build it by `Dense.of`."""

    H: Tensor
    factor: Tensor
    eigenvalue_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, matrix: Matrix) -> Dense:
        """Write out and factorise any `Matrix`.

        Raises:
            NegativeCurvature: it is not positive definite.
            ValueError: it is too large.
        """
        H = dense_matrix(matrix)
        return cls(H, cholesky(H), _range(H))

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """H⁻¹·rhs for rhs (k, P), in float64."""
        wide = rhs.double()
        # torch.cholesky_solve copies the whole factor first: ten times as long for one vector of 4,096 weights.
        half = torch.linalg.solve_triangular(self.factor, wide.mT, upper=False)
        x = torch.linalg.solve_triangular(self.factor.mT, half, upper=True).mT
        gap = wide - x @ self.H
        norm = row_dot(wide, wide).sqrt()
        residual = torch.where(norm > 0, row_dot(gap, gap).sqrt() / norm, 0.0)
        return Solution(x, 0, residual, self.eigenvalue_range, converged=True)


def _range(H: Tensor) -> tuple[float, float] | None:
    """Ritz values of H from a solve along one random vector: all eigenvalues would cost far more than the factor."""
    start = torch.randn(1, H.shape[0], dtype=torch.float64, generator=generator(0, H.shape[0])).to(H.device)
    return conjugate_gradients(lambda v: v @ H, start, tolerance=1e-6, max_iterations=100).eigenvalue_range
