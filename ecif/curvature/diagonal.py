"""The diagonal of the Gauss-Newton matrix: the cheapest stand-in that still knows each weight's own scale.

Where one solve a probe costs too much (every weight of a model is trained), self-influence is estimated through it:
diag(G) = E[r²] for draws r of covariance G, which `Loss.sample_root` gives in one pass (Hutchinson's idea, on the
square root, so no entry is ever negative).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch, generator
from ecif.linearise import pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, flatten
from ecif.solve.solution import OnState, Solution, State
from ecif.sums import Sums, Term, summed


@dataclass(frozen=True)
class SquaredDraws(Term):
    """Σ r², (P,) float64, of `probes` draws r of the covariance of each batch."""

    probes: int
    seed: int

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        total = torch.zeros_like(flatten(params), dtype=torch.float64)
        for place, batch in enumerate(batches, first):
            S, back = pull(objective, params, batch)
            for root in objective.loss.sample_root(S, self.probes, generator(self.seed, place)):
                total += back(root[None])[0].double().square()
        return {"squares": total}


@dataclass(frozen=True)
class Diagonal:
    """diagonal (P,) float64, positive: that of (1/R) Σ Jᵀ(∇²_S L)J, estimated, plus N(δ + λ)."""

    diagonal: Tensor

    @classmethod
    def of(
        cls, objective: Objective, params: Params, batches: Batches, *, damping: float, probes: int = 4, seed: int = 0
    ) -> Diagonal:
        """Estimate it in one pass.

        Raises:
            ValueError: N(δ + λ) is 0, which leaves weights that no pair touches without a scale.
        """
        ridge = objective.ridge(damping)
        if not ridge > 0:
            raise ValueError("the diagonal needs l2 or damping above 0")
        total = summed(SquaredDraws(probes, seed), objective, params, batches())["squares"]
        return cls(total / (probes * objective.partitions) + ridge)

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """rhs (k, P) divided by the diagonal."""
        exact = torch.zeros(rhs.shape[0], dtype=torch.float64, device=rhs.device)
        return Solution(rhs.double() / self.diagonal, 0, exact, None, converged=True)

    def probes(self, k: int, seed: int) -> Tensor:
        """k draws (k, P) of covariance H⁻¹: directions for `probed_self_influence`."""
        normal = torch.randn(k, self.diagonal.numel(), generator=generator(seed, -2))
        return normal.to(self.diagonal.device) / self.diagonal.sqrt()
