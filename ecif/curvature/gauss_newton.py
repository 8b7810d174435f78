"""Gauss-Newton: (1/R) Σ Jᵀ(∇²_S L)J + N(δ + λ)·I, positive semi-definite at every θ (`docs/design.md`, section 4).

The second derivative of the loss in S comes as a product and as a square root by sampling (`losses`). Every loss is
convex in S.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import heads
from ecif.curvature.base import Matrix
from ecif.linearise import pull, push


@dataclass(frozen=True)
class GaussNewton(Matrix):
    """The Hessian without the curvature of the model itself; J = dS/dθ. Fields as in `Matrix`."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(k, P) float64: G·v for vectors (k, P), one pass over the data for all of them."""
        total = torch.zeros_like(vectors, dtype=torch.float64)
        if self.objective.closed_form(self.params):
            along = heads.tangents(vectors, self.params)
            for stack in heads.stacked(self.batches(), len(vectors)):
                at = heads.AtParams.of(self.objective, self.params, stack)
                total += at.pull(self.objective.loss.curvature(at.S, at.push(along)))
            return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
        for batch in self.batches():
            S, dS = push(self.objective, self.params, batch, vectors)
            _, back = pull(self.objective, self.params, batch)
            total += back(self.objective.loss.curvature(S, dS))
        return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
