"""Gauss-Newton: (1/R) Σ Jᵀ(∇²_S L)J + N(δ + λ)·I, positive semi-definite at every θ (`docs/design.md`, section 4).

The second derivative of the loss in S comes as a product and as a square root by sampling. L is a sum of a softmax
cross-entropy per row and per column, so

    ∇²_S L · dS = p∘(dS − Σ_j p dS along the row) + q∘(dS − Σ_i q dS along the column),

positive semi-definite for every S. For a label y drawn from p[k, :], ``onehot(y) − p[k, :]`` has covariance
``diag(p) − p pᵀ``: one draw per row and per column has covariance ∇²_S L. (Labels from the model, never the
observed ones: that would be the empirical Fisher.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import heads
from ecif.curvature.base import Matrix
from ecif.linearise import pull, push


def loss_curvature(S: Tensor, dS: Tensor) -> Tensor:
    """∇²_S L · dS, (..., B, B). S (..., B, B) with false negatives excluded; dS (..., B, B)."""
    p, q = S.softmax(-1), S.softmax(-2)
    # Differences first: multiplied out, the digits that cancel are those of the whole dS.
    rows = (dS - (p * dS).sum(-1, keepdim=True)).mul_(p)
    columns = (dS - (q * dS).sum(-2, keepdim=True)).mul_(q)
    return rows.add_(columns)


def sample_root(S: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k draws (k, ..., B, B) of mean zero and covariance ∇²_S L for S (..., B, B). `generator` is on the CPU."""
    return _row_draws(S, k, generator) + _row_draws(S.mT, k, generator).mT


def _row_draws(S: Tensor, k: int, generator: torch.Generator) -> Tensor:
    p = S.softmax(-1)
    # Drawn on the CPU in float64, so that the labels do not depend on the device.
    labels = torch.multinomial(p.double().cpu().flatten(0, -2), k, replacement=True, generator=generator)
    drawn = (-p).expand(k, *p.shape).clone()
    one = torch.ones((), dtype=p.dtype, device=p.device)
    return drawn.scatter_add_(-1, labels.T.to(S.device).view(k, *p.shape[:-1], 1), one.expand(k, *p.shape[:-1], 1))


@dataclass(frozen=True)
class GaussNewton(Matrix):
    """The Hessian without the curvature of the model itself; J = dS/dθ. Fields as in `Matrix`."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(k, P) float64: G·v for vectors (k, P), one pass over the data for all of them."""
        total = torch.zeros_like(vectors, dtype=torch.float64)
        if self.objective.closed_form(self.params):
            narrow = vectors.to(next(iter(self.params.values())).dtype)  # once, and not for every stack
            for stack in heads.stacked(self.batches(), len(vectors)):
                at = heads.AtParams.of(self.objective, self.params, stack)
                total += at.pull(loss_curvature(at.S, at.push(narrow)))
            return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
        for batch in self.batches():
            S, dS = push(self.objective, self.params, batch, vectors)
            _, back = pull(self.objective, self.params, batch)
            total += back(loss_curvature(S, dS))
        return total / self.objective.partitions + self.objective.ridge(self.damping) * vectors
