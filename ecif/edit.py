"""Take pairs out of a fitted model by the curvature of the pairs that stay (`docs/design.md`, section 9).

With f_R the objective without the set R (N, batches and prior as they were) and g_R = ∇(Σ_R Pos + Neg_R), what leaves
the gradient, one step of influence is θ̂ + H⁻¹g_R, H the curvature of *all* pairs. H counts what R held on to, so the
step falls short: losses of refits move further, by 6 to 25 % where 5 % of the pairs leave. Here the curvature is G_R,
Gauss-Newton of the pairs that stay, at the point that has been reached:

    θ_{k+1} = θ_k − t·G_R(θ_k)⁻¹ r(θ_k),      r(θ̂) = −g_R.

r is the gradient of what is to be minimised. Of a fit at its minimum that is f_R itself, less ∇f(θ̂), the little that
was left of the gradient. A model that was never at a minimum would only be trained further by that; there it is the
proximal Bregman objective (Bae et al. 2022), whose minimum with all pairs is θ̂:

    Σ_batches [ L(batch without R)(S) − ⟨∇L(batch)(Ŝ), S⟩ ] + N(δ + λ)/2·‖θ − θ̂‖².

Both have r(θ̂) = −g_R, so that the first step is the same. Steps end where ‖r‖ is a small share of ‖g_R‖, or where no
step makes it less: t is halved until it does. The curvature of all pairs is at hand and preconditions every solve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature
from ecif.curvature.gauss_newton import GaussNewton
from ecif.linearise import pull
from ecif.objective import Objective
from ecif.parameters import Params, flatten, unflatten

Leaving = Callable[[], Iterable[tuple[Batch, Tensor]]]
"""One pass over all batches of all partitions, each with who leaves it, (B,) bool on the CPU."""

_HALVINGS = 6


@dataclass(frozen=True)
class Edit:
    """Attributes:
    step: θ_k − θ̂, (P,) float64.
    steps: k, how many were made.
    reduced_gradient: ‖r(θ_k)‖ / ‖g_R‖: 1 before the first step, 0 at the minimum.
    passes: of conjugate gradients, over all steps.
    """

    step: Tensor
    steps: int
    reduced_gradient: float
    passes: int


@dataclass(frozen=True)
class Reduced:
    """What is left to be minimised when pairs leave, and how it is curved.

    Attributes:
        objective, params: of all pairs, and the point θ̂ that was reached with them.
        leaving: one pass.
        damping: λ per pair.
        proximal: whether θ̂ is no minimum.
    """

    objective: Objective
    params: Params
    leaving: Leaving
    damping: float = 0.0
    proximal: bool = False

    def staying(self) -> Iterator[Batch]:
        """The batches without those who leave; what is empty is left out."""
        for batch, leaves in self.leaving():
            some = without(batch, leaves)
            if some is not None:
                yield some

    def gradient(self, params: Params) -> Tensor:
        """r there, (P,) float64, but for a constant: that of `at_start`."""
        if not self.proximal:
            return self.objective.value_and_gradient(params, self.staying())[1] + self._pull(params, self.damping)
        total = torch.zeros_like(flatten(params), dtype=torch.float64)
        for batch, leaves in self.leaving():
            some = without(batch, leaves)
            if some is not None:
                total += self.objective.batch_value_and_gradient(params, some)[1]
            with torch.no_grad():
                tilt = self.objective.loss.gradient(self.objective.similarity(self.params, batch))
            total -= pull(self.objective, params, batch)[1](tilt[None])[0]
        ridge = self.objective.l2 + self.damping
        return total / self.objective.partitions + self._pull(params, ridge)

    def curvature(self, params: Params, *, tolerance: float, max_passes: int, near: Curvature | None) -> GaussNewton:
        """G_R there."""
        return GaussNewton(
            self.objective,
            params,
            self.staying,
            damping=self.damping,
            tolerance=tolerance,
            max_iterations=max_passes,
            preconditioner=near,
        )

    def _pull(self, params: Params, per_pair: float) -> Tensor:
        offset = (flatten(params) - flatten(self.params)).double()
        return self.objective.n_pairs * per_pair * offset


def edit(
    reduced: Reduced,
    removed: Tensor,
    *,
    most_steps: int = 4,
    stop: float = 0.02,
    tolerance: float = 1e-2,
    max_passes: int = 100,
    near: Curvature | None = None,
) -> Edit:
    """Take pairs out of a fitted model.

    Args:
        removed: g_R, (P,).
        stop: the share of ‖g_R‖ that ‖r‖ is to fall below.
        tolerance, max_passes: of each solve.
        near: the curvature of all pairs, to precondition with.
    """
    start = flatten(reduced.params).detach()
    theta, like = start.double(), reduced.params
    leaves = float(removed.double().norm())
    if leaves == 0:
        return Edit(torch.zeros_like(theta), 0, 0.0, 0)
    # r(θ̂) is known, and more exactly than as a difference of two sums: the constant makes it so.
    residual = -removed.double()
    offset: Tensor | None = None
    made, passes = 0, 0
    for _ in range(most_steps):
        if float(residual.norm()) <= stop * leaves:
            break
        here = unflatten(theta.to(start), like)
        if offset is None:
            offset = residual - reduced.gradient(here)
        matrix = reduced.curvature(here, tolerance=tolerance, max_passes=max_passes, near=near)
        solution = matrix.solve(residual.to(start)[None])
        passes += solution.iterations
        moved = _shorter(reduced, theta, solution.x[0].double(), residual, offset, start)
        if moved is None:
            break
        theta, residual = moved
        made += 1
    return Edit(theta - start.double(), made, float(residual.norm()) / leaves, passes)


def _shorter(
    reduced: Reduced, theta: Tensor, newton: Tensor, residual: Tensor, offset: Tensor, like: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The first of the step and its halves after which ‖r‖ is less, and r there; none where none is."""
    share = 1.0
    for _ in range(_HALVINGS):
        trial = theta - share * newton
        there = reduced.gradient(unflatten(trial.to(like), reduced.params)) + offset
        if bool(there.isfinite().all()) and float(there.norm()) < float(residual.norm()):
            return trial, there
        share /= 2
    return None


def without(batch: Batch, leaves: Tensor) -> Batch | None:
    """The batch without the pairs that leave, (B,) bool; None where all do."""
    if not bool(leaves.any()):
        return batch
    stays = (~leaves).to(batch.texts.device)
    if not bool(stays.any()):
        return None
    return batch.take(stays)
