"""Gauss-Newton: (1/R) Σ Jᵀ(∇²_S L)J + N(δ + λ)·I, positive semi-definite at every θ (design section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.curvature.base import Matrix
from ecif.curvature.loss_curvature import loss_curvature
from ecif.linearise import pull, push


@dataclass(frozen=True)
class GaussNewton(Matrix):
    """The Hessian without the curvature of the model itself; J = dS/dθ. Fields as in `Matrix`."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(k, P) float64: G·v for vectors (k, P), one pass over the data for all of them."""
        total = torch.zeros_like(vectors, dtype=torch.float64)
        for batch in self.batches():
            S, dS = push(self.objective, self.params, batch, vectors)
            _, back = pull(self.objective, self.params, batch)
            total += back(loss_curvature(S, dS))
        return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
