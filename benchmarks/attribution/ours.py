"""What our methods predict: for every pair, and for every set that leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import process_time
from typing import Final

import torch
from torch import Tensor

from benchmarks.removals import removal_gradients
from benchmarks.worlds import World
from ecif import Curvature, Ekfac, GaussNewton, Hessian, Identity, Projected, Projection, project_batch
from ecif.batches import Batch
from ecif.curvature.projection import SIZE as PROJECTION_SIZE
from ecif.edit import Reduced, edit
from ecif.fit.scheduled import ScheduledFit
from ecif.methods import tracin
from ecif.methods.magic import magic
from ecif.parameters import Params, flatten, size, unflatten
from ecif.scoring import score_batch, score_removals

DRAWS: Final = 32
PASSES: Final = 4
FEW: Final = f"ekfac + {PASSES} passes"


@dataclass(frozen=True)
class Predicted:
    """Of one method.

    scores: of each pair, (n,). sets: of each set, (m,). steps: how the model moves when a set leaves, (edits, P), where
    the method says so. seconds: processor time of `scores`, all that it is made of included; set_seconds: of one set.
    """

    scores: Tensor
    sets: Tensor
    steps: Tensor | None
    seconds: float
    set_seconds: float | None = None


@dataclass(frozen=True)
class Point:
    """Where the heads stand. damping: λ per pair. proximal: whether that is no minimum. checkpoints: on the way."""

    world: World
    params: Params
    damping: float
    proximal: bool
    checkpoints: list[Params]

    @property
    def gradient(self) -> Tensor:
        """∇L_val, (P,)."""
        return self.world.validate(self.params)[1]


def by_curvature(point: Point, subsets: Tensor, edits: int) -> Iterator[tuple[str, Predicted]]:
    """ECIF with each curvature, and Gauss-Newton's positive role alone."""
    world, params = point.world, point.params
    removals = removal_gradients(world, params, subsets[:edits])
    for name, make in curvatures(point).items():
        begin = process_time()
        try:
            curvature = make()
            direction = curvature.solve(point.gradient[None]).x
        except ArithmeticError:  # a Hessian that is not positive definite has no inverse to ask
            continue
        both, own = _scores(world, params, direction)
        seconds = process_time() - begin
        sets = torch.zeros(len(subsets), dtype=torch.float64)
        for batch in world.train:
            sets += score_removals(world.objective, params, batch, direction, subsets[:, batch.image_group])[0]
        yield name, Predicted(both, sets, curvature.solve(removals).x, seconds)
        if name == "gauss_newton":
            yield "positive role alone", Predicted(own, subsets.double() @ own, None, seconds)


def curvatures(point: Point) -> dict[str, Callable[[], Curvature]]:
    """All of them, not yet made."""
    world, params = point.world, point.params
    objective, damping = world.objective, point.damping
    given = (objective, params, world.batches)

    def projected() -> Curvature:
        projection = Projection.of_size(params, 0, min(PROJECTION_SIZE, size(params) * 9 // 16))
        parts = (project_batch(objective, params, batch, projection).curvature for batch in world.train)
        return Projected.finish(objective, projection, parts, damping)

    def near() -> Ekfac:
        return Ekfac.of(*given, damping=damping, draws=DRAWS)

    return {
        "hessian": lambda: Hessian(*given, damping=damping, tolerance=1e-4, max_iterations=500),
        "gauss_newton": lambda: GaussNewton(*given, damping=damping, tolerance=1e-4, max_iterations=500),
        FEW: lambda: GaussNewton(*given, damping=damping, max_iterations=PASSES, preconditioner=near()),
        "ekfac": near,
        "projected": projected,
        "identity": Identity,
    }


def edited(point: Point, subsets: Tensor, most_steps: int, near: Curvature | None, passes: int) -> Predicted:
    """Every set by an edit of its own, with the curvature of the pairs that stay: L_val of the edited model."""
    world, start = point.world, flatten(point.params)
    before = world.validate(point.params)[0]
    removals = removal_gradients(world, point.params, subsets)
    begin = process_time()
    steps, changes = [], []
    for subset, removed in zip(subsets, removals, strict=True):

        def leaving(subset: Tensor = subset) -> Iterator[tuple[Batch, Tensor]]:
            return ((batch, subset[batch.image_group]) for batch in world.train)

        reduced = Reduced(world.objective, point.params, leaving, point.damping, point.proximal)
        made = edit(reduced, removed, most_steps=most_steps, max_passes=passes, near=near)
        steps.append(made.step)
        changes.append(world.validate(unflatten(start + made.step, point.params))[0] - before)
    seconds = (process_time() - begin) / len(subsets)
    sets = torch.tensor(changes, dtype=torch.float64)
    return Predicted(torch.zeros(0), sets, torch.stack(steps), seconds, seconds)


def by_magic(world: World, fit: ScheduledFit, subsets: Tensor) -> Predicted:
    """The derivative of a fit on a schedule; sets along its directions, as all other methods."""
    begin = process_time()
    found = magic(fit, list(world.validation), world.n_validation, keep=True)
    scores = torch.zeros(world.n, dtype=torch.float64)
    for batch, positive, negative in zip(world.train, found.positive, found.negative, strict=True):
        scores[batch.image_group] += positive + negative
    seconds = process_time() - begin
    assert found.directions is not None
    assert found.thetas is not None
    sets = torch.zeros(len(subsets), dtype=torch.float64)
    for step in range(fit.steps):
        batch, at = fit.batch(step), unflatten(found.thetas[step], fit.start)
        direction = found.directions[step][None]
        sets += score_removals(world.objective, at, batch, direction, subsets[:, batch.image_group])[0]
    return Predicted(scores, sets, None, seconds)


def by_tracin(point: Point, subsets: Tensor) -> Predicted:
    """Over the checkpoints of the fit, as a job has it."""
    world, begin = point.world, process_time()
    gradients = [world.validate(params)[1] for params in point.checkpoints]
    scores = torch.zeros(world.n, dtype=torch.float64)
    rates = [1.0] * len(point.checkpoints)
    for batch in world.train:
        scores[batch.image_group] += tracin(world.objective, point.checkpoints, rates, gradients, batch)
    return Predicted(scores, subsets.double() @ scores, None, process_time() - begin)


def _scores(world: World, params: Params, direction: Tensor) -> tuple[Tensor, Tensor]:
    """(both roles, the positive one alone) of all pairs, (n,) each."""
    both, own = torch.zeros(world.n, dtype=torch.float64), torch.zeros(world.n, dtype=torch.float64)
    for batch in world.train:
        scores = score_batch(world.objective, params, batch, direction)
        both[batch.image_group], own[batch.image_group] = scores.total[0], scores.positive[0]
    return both, own
