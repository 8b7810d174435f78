"""The protocol of every curvature, the trivial one, and what those known by their products have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ecif.objective import Batches, Objective
from ecif.parameters import Params
from ecif.solve.conjugate_gradients import conjugate_gradients
from ecif.solve.solution import OnState, Solution, State


class Curvature(Protocol):
    """H, or a positive definite stand-in for it, to be inverted."""

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """H⁻¹·rhs for rhs (k, P). A direct method takes no notice of `state` and `on_state`."""
        ...


@dataclass(frozen=True)
class Matrix(ABC):
    """A curvature known by its product with vectors, inverted by conjugate gradients.

    Attributes:
        objective, params: the function and the point it is curved at.
        batches: one pass over the data for every call.
        damping: λ ≥ 0 per pair; N·(δ + λ) is added to every eigenvalue.
        tolerance: of the relative residual.
        max_iterations: passes over the data at most (verification takes one or two more).
        strict: raise NotConverged rather than report it.
        preconditioner: a curvature close to this one whose solve is cheap, symmetric and positive (`Ekfac`).
    """

    objective: Objective
    params: Params
    batches: Batches
    damping: float = 0.0
    tolerance: float = 1e-4
    max_iterations: int = 200
    strict: bool = False
    preconditioner: Curvature | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.damping < float("inf"):
            raise ValueError(f"damping must be finite and not negative, got {self.damping}")

    @abstractmethod
    def apply(self, vectors: Tensor) -> Tensor:
        """H·v, (k, P) float64, for vectors (k, P), in one pass over the data."""

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """H⁻¹·rhs for rhs (k, P); raises as `conjugate_gradients` does."""
        near = self.preconditioner
        return conjugate_gradients(
            self.apply,
            rhs,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            strict=self.strict,
            preconditioner=None if near is None else lambda residual: near.solve(residual).x,
            state=state,
            on_state=on_state,
        )


@dataclass(frozen=True)
class Identity:
    """No curvature at all."""

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """rhs (k, P) itself."""
        residual = torch.zeros(rhs.shape[0], dtype=torch.float64, device=rhs.device)
        return Solution(rhs.clone(), 0, residual, (1.0, 1.0), converged=True)
