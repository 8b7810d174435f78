"""Gauss-Newton: (1/R) Σ Jᵀ(∇²_S L)J + N(δ + λ)·I, positive semi-definite at every θ (`docs/design.md`, section 4).

The second derivative of the loss in S comes as a product and as a square root by sampling (`losses`). Every loss is
convex in S.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import heads
from ecif.batches import Batch
from ecif.curvature.base import Matrix
from ecif.linearise import pull, push
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.sums import Sums, Term, summed


@dataclass(frozen=True)
class GaussNewtonProduct(Term):
    """Σ Jᵀ(∇²_S L)J·v, (k, P) float64, for vectors (k, P)."""

    vectors: Tensor

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        product = torch.zeros_like(self.vectors, dtype=torch.float64)
        if objective.closed_form(params):
            along = heads.tangents(self.vectors, params)
            for stack in heads.stacked(batches, len(self.vectors)):
                at = heads.AtParams.of(objective, params, stack)
                product += at.pull(objective.loss.curvature(at.S, at.push(along)))
            return {"product": product}
        for batch in batches:
            S, dS = push(objective, params, batch, self.vectors)
            _, back = pull(objective, params, batch)
            product += back(objective.loss.curvature(S, dS))
        return {"product": product}


@dataclass(frozen=True)
class GaussNewton(Matrix):
    """The Hessian without the curvature of the model itself; J = dS/dθ. Fields as in `Matrix`."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(k, P) float64: G·v for vectors (k, P), one pass over the data for all of them."""
        total = summed(GaussNewtonProduct(vectors), self.objective, self.params, self.batches())["product"]
        return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
