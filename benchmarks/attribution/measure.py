"""One setting: refits by both oracles, and how well every method has told them."""

from __future__ import annotations

from statistics import median
from time import process_time

import torch
from torch import Tensor

from benchmarks.attribution.environment import Peers
from benchmarks.attribution.ours import (
    FEW,
    PASSES,
    Point,
    Predicted,
    by_curvature,
    by_magic,
    by_tracin,
    curvatures,
    edited,
)
from benchmarks.attribution.refits import retrained
from benchmarks.attribution.settings import Setting
from benchmarks.attribution.world import embeddings, world
from benchmarks.removals import Oracle, twentieths
from benchmarks.sections import Json
from benchmarks.worlds import World
from ecif import FitSettings, GaussNewton, dense_matrix, fit
from ecif.batches import generator
from ecif.datamodelling import datamodelling_score, spearman
from ecif.fit.scheduled import Schedule, ScheduledFit, typical_square
from ecif.parameters import Params, flatten, unflatten

_SCHEDULED_L2 = 1e-3
_DAMPING = 0.05
"""λ per pair where the fit has not come to rest: with less the proximal oracle does not come to rest either."""
_EPOCHS = 10
_LONG = 100
"""Epochs of the schedule that stands for a fit to the minimum, which `magic` has no derivative of."""
_RATE = 3e-3
_ROOT = 0.01


def schedule_of(made: World, epochs: int) -> ScheduledFit:
    """That of `magic`, with the root that a job takes."""
    root = _ROOT * typical_square(made.objective, made.start, made.train)
    return ScheduledFit(made.objective, made.start, made.train, Schedule(epochs, _RATE, root))


def measure(setting: Setting, peers: Peers | None) -> Json:
    """All figures of a setting."""
    pairs, scale = embeddings(setting.data, setting.seed)
    begin = process_time()
    stationary = setting.fitted == "minimum"
    made = world(pairs, scale, setting.data.batch, setting.l2 if stationary else _SCHEDULED_L2, setting.seed)
    plan = schedule_of(made, _LONG if stationary else _EPOCHS)
    params, checkpoints = _trained(made, plan, stationary)
    damping = 0.0 if stationary else _DAMPING
    point = Point(made, params, damping, not stationary, checkpoints)
    sets = twentieths(made, setting.subsets, setting.seed)
    singles = torch.randperm(made.n, generator=generator(setting.seed, -1))[: setting.singles]
    alone = torch.nn.functional.one_hot(singles, made.n).bool()
    leaving = torch.cat([sets, alone])
    ridge = made.objective.ridge(damping)
    matrix = dense_matrix(GaussNewton(made.objective, params, made.batches, damping=damping))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    refitting = process_time()
    if stationary:
        again, ended = Oracle(made, params, False, ridge, inverse).refit(leaving)
    else:
        again, ended = retrained(made, plan, leaving), torch.ones(len(leaving), dtype=torch.bool)
    refitting = (process_time() - refitting) / len(leaving)
    near, near_ended = Oracle(made, params, True, ridge, inverse).refit(sets)
    oracle = _Against(point, again, ended, singles)
    proximal = _Against(point, near, near_ended, singles[:0])

    rows: list[Json] = []

    def row(name: str, by: str, predicted: Predicted, edits: int = 0) -> None:
        found: Json = {"method": name, "by": by, "seconds": predicted.seconds, "set_seconds": predicted.set_seconds}
        found |= {"retrained": oracle.judge(predicted), "proximal": proximal.judge(predicted)}
        if predicted.steps is not None:
            found["edit"] = oracle.gap(predicted.steps[: edits or None])
        rows.append(found)

    for name, predicted in by_curvature(point, sets, setting.edits):
        row(name, "ours", predicted, setting.edits)
    row("magic", "ours", by_magic(made, plan, sets))
    row("tracin", "ours", by_tracin(point, sets))
    made_ready = curvatures(point)["ekfac"]()
    row("edit, 1 step", "ours", edited(point, sets, 1, made_ready, 100), setting.edits)
    row("edit", "ours", edited(point, sets, 4, made_ready, 100), setting.edits)
    row(f"edit, {FEW} a step", "ours", edited(point, sets, 4, made_ready, PASSES), setting.edits)
    failed = {}
    for name, answer in (peers.answers(point) if peers is not None else {}).items():
        if answer.scores is None:
            failed[name] = answer.failed
            continue
        row(name, "theirs", Predicted(answer.scores, sets.double() @ answer.scores, None, answer.seconds))
    return {
        "kind": setting.data.kind,
        "noise": setting.data.noise,
        "fitted": setting.fitted,
        "seed": setting.seed,
        "pairs": made.n,
        "parameters": flatten(params).numel(),
        "scale": scale,
        "damping": damping,
        "subsets": setting.subsets,
        "singles": setting.singles,
        "ended": {"retrained": int(oracle.sets.sum()), "proximal": int(proximal.sets.sum())},
        "refit_seconds": refitting,
        "validation_loss": oracle.before,
        "change": float(oracle.changes[: setting.subsets].std()),
        "rows": rows,
        "failed": failed,
        "seconds": process_time() - begin,
    }


def _trained(made: World, plan: ScheduledFit, stationary: bool) -> tuple[Params, list[Params]]:
    """(the weights, four checkpoints along the way)."""
    if stationary:
        fitted = fit(made.objective, made.start, made.batches, FitSettings(epochs=3000, tolerance=1e-8))
        if not fitted.stationary:
            raise RuntimeError(f"the fit is not stationary: decrement bound {fitted.decrement_bound:.1e}")
        return fitted.params, fitted.checkpoints
    now, checkpoints = plan.opening(), []
    for step in range(plan.steps):
        now = plan.advance(now, step)
        if (step + 1) % max(1, plan.steps // 4) == 0:
            checkpoints.append(unflatten(now.theta, plan.start))
    return unflatten(now.theta, plan.start), checkpoints


class _Against:
    """One oracle's refits, sets first, then single pairs; what did not come to an end is left out."""

    def __init__(self, point: Point, thetas: Tensor, ended: Tensor, singles: Tensor) -> None:
        made, params, subsets = point.world, point.params, len(thetas) - len(singles)
        self.before = made.validate(params)[0]
        changes = [made.validate(unflatten(theta, params))[0] - self.before for theta in thetas]
        self.changes = torch.tensor(changes, dtype=torch.float64)
        self.sets, self.alone = ended[:subsets], ended[subsets:]
        self._made, self._params, self._thetas, self._subsets = made, params, thetas, subsets
        self._singles = singles

    def judge(self, predicted: Predicted) -> Json | None:
        """LDS with its interval, the slope, and the correlation over single pairs; None where most refits have not come
        to an end."""
        if int(self.sets.sum()) * 2 <= len(self.sets):
            return None
        actual, alone = self.changes[: self._subsets][self.sets], self.changes[self._subsets :][self.alone]
        score = datamodelling_score(predicted.sets[self.sets], actual, resamples=1000)
        found: Json = {"lds": score.spearman, "low": score.low, "high": score.high, "slope": score.slope}
        if len(predicted.scores) and len(alone):
            found["loo"] = spearman(predicted.scores[self._singles[self.alone]], alone)
        return found

    def gap(self, steps: Tensor) -> Json:
        """How far edited models are from refitted ones: medians, as shares of what the refit changed."""
        count, start = len(steps), flatten(self._params)
        there, actual = self._thetas[:count], self.changes[:count]
        distance = (start + steps - there).norm(dim=1) / (there - start).norm(dim=1)
        values = [self._made.validate(unflatten(start + step, self._params))[0] - self.before for step in steps]
        off = (torch.tensor(values, dtype=torch.float64) - actual).abs()
        return {"distance": median(distance.tolist()), "loss_gap": float(off.median() / actual.abs().median())}
