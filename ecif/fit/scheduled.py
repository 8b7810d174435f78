"""A fit whose every step is fixed beforehand, so that its end is a smooth function of what it was trained on.

Adam with the schedule of `adam`, over the same batches in the same order in every epoch; it neither stops early nor
searches, and the regulariser's share of a step is the same in each, N·δ·R over the steps of an epoch, whoever leaves.

Adam divides by the root of its mean square. At a gradient of 0 its step has the slope 1/ε, and where one step has a
gradient near 0 a weight of one pair turns its sign: the end is then hardly a function of weights. `root` under the
square root (ε_root of Engstrom et al. 2025, *Optimizing ML Training with Metagradient Descent*, arXiv 2503.13751)
bounds that slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.fit.adam import Adam, scheduled
from ecif.objective import Objective
from ecif.parameters import Params, flatten, unflatten

OnStep = Callable[[int], None]
"""Told how many steps have been made."""


@dataclass(frozen=True)
class Schedule:
    """epochs: passes over all batches of all partitions. learning_rate: Adam's peak. root: under Adam's square root, in
    units of a squared gradient of a batch.

    Raises:
        ValueError: a setting out of its range.
    """

    epochs: int
    learning_rate: float
    root: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.learning_rate > 0 or not self.root > 0:
            raise ValueError("a schedule needs an epoch, a learning rate and a root above 0")


@dataclass(frozen=True)
class ScheduledFit:
    """The fit as a map from one state of Adam to the next.

    Attributes:
        objective, start: what is minimised, and from where.
        batches: all batches of all R partitions, in the order of every epoch.
        schedule: how.
    """

    objective: Objective
    start: Params
    batches: Sequence[Batch]
    schedule: Schedule

    @property
    def steps(self) -> int:
        """T, of the whole fit."""
        return self.schedule.epochs * len(self.batches)

    @property
    def pull(self) -> float:
        """The regulariser's share of one step: its gradient is this times θ − θ_prior."""
        return self.objective.ridge() * self.objective.partitions / len(self.batches)

    def batch(self, step: int) -> Batch:
        """That of a step, from 0 on."""
        return self.batches[step % len(self.batches)]

    def rate(self, step: int) -> float:
        """Of a step."""
        return self.schedule.learning_rate * scheduled((step + 1) / self.steps)

    def opening(self) -> Adam:
        """Before the first step."""
        return Adam.start(flatten(self.start).detach())

    def prior(self) -> Tensor:
        """θ_prior, (P,)."""
        return flatten(self.objective.prior).detach()

    def advance(self, now: Adam, step: int) -> Adam:
        """Make a step.

        Raises:
            ValueError: its gradient is not finite.
        """
        _, gradient = self.objective.batch_value_and_gradient(unflatten(now.theta, self.start), self.batch(step))
        gradient = gradient + self.pull * (now.theta - self.prior())
        if not bool(gradient.isfinite().all()):
            raise ValueError(f"the gradient of step {step + 1} is not finite: lower the learning rate")
        return now.step(gradient, self.rate(step), self.schedule.root)

    def end(self, on_step: OnStep | None = None) -> Params:
        """Make all steps."""
        now = self.opening()
        for step in range(self.steps):
            now = self.advance(now, step)
            if on_step is not None:
                on_step(step + 1)
        return unflatten(now.theta, self.start)


def typical_square(objective: Objective, start: Params, batches: Sequence[Batch]) -> float:
    """The mean square of the coordinates of the batches' gradients at the start: what a `root` is a share of."""
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        total += objective.batch_value_and_gradient(start, batch)[1].double().square().mean().cpu()
    return float(total) / len(batches)
