"""The exact Hessian of the training objective, by reverse mode over reverse mode (`docs/design.md`, section 4).

Not forwards over reverse: torch is wrong there for LayerNorm (pytorch/pytorch#196700), and its result not symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from ecif.at_once import DIRECTIONS
from ecif.batches import Batch
from ecif.curvature.base import Matrix
from ecif.linearise import forward_mode
from ecif.objective import Objective
from ecif.parameters import Params, flatten, unflatten
from ecif.sums import Sums, Term, summed


@dataclass(frozen=True)
class HessianProduct(Term):
    """Σ ∇²L_batch·v, (k, P) float64, for vectors (k, P)."""

    vectors: Tensor

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        total = torch.zeros_like(self.vectors, dtype=torch.float64)
        directions = unflatten(self.vectors, params)
        with forward_mode(), torch.no_grad():
            for batch in batches:
                # H is symmetric, so the gradient's vector-Jacobian product is H·v; the batch's gradient
                # is evaluated once for all k.
                gradient = grad(partial(objective.batch_loss, batch=batch))
                product = vjp(gradient, params)[1]
                total += DIRECTIONS.fitting(len(self.vectors), partial(_mapped, product, directions))
        return {"product": total}


@dataclass(frozen=True)
class Hessian(Matrix):
    """∇² of the objective + N·λ·I. Fields as in `Matrix`; negative curvature is an error that says so."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(k, P) float64: H·v for vectors (k, P), one pass over the data for all of them."""
        total = summed(HessianProduct(vectors), self.objective, self.params, self.batches())["product"]
        return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors


def _mapped(product: Callable[[Params], tuple[Params]], directions: Params, at_once: int) -> Tensor:
    """The product of every direction, (k, P)."""
    return flatten(vmap(product, chunk_size=at_once)(directions)[0], leading=1)
