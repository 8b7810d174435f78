"""A line search for the strong Wolfe conditions, shown one trial at a time so that it can be stored between any two.

Along φ(t) = f(θ + t·d) it looks for  φ(t) ≤ φ(0) + c₁·t·φ'(0)  and  |φ'(t)| ≤ c₂·|φ'(0)|: Nocedal and Wright,
*Numerical Optimization*, algorithms 3.5 (bracket) and 3.6 (zoom), one interval [low, high) serving both, high being
at infinity until something is known to lie beyond the minimum. Departures: a trial is also accepted by the
approximate Wolfe condition of Hager and Zhang (2005), which works on slopes where rounding hides the decrease, and
differences of φ within rounding are decided by slopes throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

_DECREASE = 1e-4  # c₁
_SLOPE = 0.9  # c₂
_NOISE = 1e-6  # of |φ(0)|: what float32 batches can resolve
_TRIALS = 12


class Trial(NamedTuple):
    """t, φ(t), φ'(t)."""

    step: float
    value: float
    slope: float


@dataclass(frozen=True)
class LineSearch:
    """A search under way.

    Attributes:
        origin: t = 0, with a negative slope.
        low: the lowest trial with sufficient decrease so far, or the origin.
        high: beyond the minimum, on either side of low; at infinity while nothing is.
        step: the next t to try.
        trials: made so far.
        accepted: the last trial shown fulfils the conditions.
    """

    origin: Trial
    low: Trial
    high: Trial
    step: float
    trials: int = 0
    accepted: bool = False

    @classmethod
    def start(cls, value: float, slope: float, step: float) -> LineSearch:
        """From φ(0), φ'(0) < 0 and the first t to try."""
        origin = Trial(0.0, value, slope)
        return cls(origin, origin, Trial(math.inf, math.inf, math.inf), step)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial is worth making: `low` is then all there is."""
        return self.trials >= _TRIALS or self.step == self.low.step

    def observe(self, value: float, slope: float) -> LineSearch:
        """The state after φ and φ' at `step` are known; where they are not finite the point lies too far out."""
        trial = Trial(self.step, value, slope)
        seen = replace(self, trials=self.trials + 1)
        if not (math.isfinite(value) and math.isfinite(slope)):
            return replace(seen, high=Trial(self.step, math.inf, math.inf))._next()
        if self._wolfe(trial):
            return replace(seen, low=trial, accepted=True)
        noise = _NOISE * abs(self.origin.value)
        enough = value <= self.origin.value + _DECREASE * self.step * self.origin.slope + noise
        if not enough or value > self.low.value + noise:
            return replace(seen, high=trial)._next()
        beyond = self.low if slope * (self.high.step - self.low.step) >= 0 else self.high
        return replace(seen, low=trial, high=beyond)._next()

    def _wolfe(self, trial: Trial) -> bool:
        start = self.origin
        if trial.value <= start.value + _DECREASE * trial.step * start.slope:
            return abs(trial.slope) <= -_SLOPE * start.slope
        level = trial.value <= start.value + _NOISE * abs(start.value)
        return level and _SLOPE * start.slope <= trial.slope <= (2 * _DECREASE - 1) * start.slope

    def _next(self) -> LineSearch:
        low, high = self.low, self.high
        if math.isinf(high.step):  # the slope still falls: on by its secant, two to ten times as far
            fall = low.slope - self.origin.slope
            secant = -low.slope * low.step / fall if fall > 0 else math.inf
            return replace(self, step=low.step + min(max(secant, low.step), 9 * low.step))
        if math.isinf(high.value):
            return replace(self, step=low.step + 0.1 * (high.step - low.step))
        share = min(max(_cubic_minimiser(low, high), 0.1), 0.9)
        return replace(self, step=low.step + share * (high.step - low.step))

    def to_tensor(self) -> Tensor:
        """(12,) float64."""
        numbers = [*self.origin, *self.low, *self.high, self.step, self.trials, self.accepted]
        return torch.tensor(numbers, dtype=torch.float64)

    @classmethod
    def from_tensor(cls, numbers: Tensor) -> LineSearch:
        """The inverse of `to_tensor`."""
        n: list[float] = numbers.tolist()
        return cls(Trial(*n[0:3]), Trial(*n[3:6]), Trial(*n[6:9]), n[9], int(n[10]), bool(n[11]))


def _cubic_minimiser(low: Trial, high: Trial) -> float:
    """Where the cubic through both values and slopes is least, as a share of the way from low to high
    (Nocedal and Wright 3.59); ½ where it has no minimum."""
    width = high.step - low.step
    here, there = low.slope * width, high.slope * width  # per unit of share
    d1 = here + there - 3 * (high.value - low.value)
    square = d1 * d1 - here * there
    if not square >= 0:
        return 0.5
    d2 = math.sqrt(square)
    bottom = there - here + 2 * d2
    return 1 - (there + d2 - d1) / bottom if bottom > 0 else 0.5
