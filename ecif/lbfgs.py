"""L-BFGS as a state that is shown one evaluation at a time, so that a fit can stop between any two.

Nocedal and Wright, *Numerical Optimization*, algorithms 7.4 and 7.5, backtracking until Armijo's condition holds and
the slope does not overshoot (the upper half of the strong Wolfe condition). Departures: a step is also accepted by the
approximate Wolfe condition of Hager and Zhang (2005), which works on slopes where rounding hides the decrease;
a slope that grows steeper is followed twice as far; pairs without positive curvature are not remembered; when
backtracking fails, memory is dropped and steepest descent tried before the search is declared stuck.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecif.parameters import row_dot

_MEMORY = 1 << 27  # numbers in moves and in turns each, but between 8 and 20 pairs
_DECREASE = 1e-4  # Armijo
_SLOPE = 0.9  # Wolfe, for the approximate test
_NOISE = 1e-6  # of |value|: what float32 batches can resolve
_TRIALS = 8


@dataclass(frozen=True)
class Lbfgs:
    """The accepted point and the search under way from it.

    Attributes:
        theta: (P,) accepted point; value, gradient (P,) float64: the objective there.
        direction: (P,); step: the next trial is theta + step·direction.
        moves, turns: (m, P), accepted steps and the changes of gradient they brought, oldest first.
        trials: evaluations along this direction so far.
        stuck: neither L-BFGS nor steepest descent finds a lower point.
    """

    theta: Tensor
    value: float
    gradient: Tensor
    direction: Tensor
    step: float
    moves: Tensor
    turns: Tensor
    trials: int = 0
    stuck: bool = False

    @classmethod
    def start(cls, theta: Tensor, value: float, gradient: Tensor, first_length: float) -> Lbfgs:
        """At an evaluated point; the first trial is `first_length` away down the gradient."""
        empty = theta.new_zeros(0, theta.numel())
        direction = -gradient.to(theta)
        step = first_length / max(float(gradient.norm()), 1e-300)
        return cls(theta, value, gradient, direction, step, empty, empty)

    @property
    def trial(self) -> Tensor:
        """(P,), the point to evaluate next."""
        return self.theta + self.step * self.direction

    def observe(self, value: float, gradient: Tensor) -> Lbfgs:
        """The state after the objective at `trial` is known: moved there, or with a shorter step to try."""
        slope, there = _dot(self.gradient, self.direction), _dot(gradient, self.direction)
        last = self.trials + 1 == _TRIALS
        if self._low_enough(value, slope, there) and (there <= -_SLOPE * slope or last):
            if there <= slope and value < self.value:
                return self._walk_on(value, gradient)
            return self._move(value, gradient)
        if not last:
            return replace(self, step=self._shorter(value, slope, there), trials=self.trials + 1)
        if self.moves.shape[0] == 0:
            return replace(self, stuck=True)
        length = self.step * float(self.direction.norm())
        return Lbfgs.start(self.theta, self.value, self.gradient, length)

    def _low_enough(self, value: float, slope: float, there: float) -> bool:
        if value <= self.value + _DECREASE * self.step * slope:
            return True
        level = value <= self.value + _NOISE * abs(self.value)
        return level and _SLOPE * slope <= there <= (2 * _DECREASE - 1) * slope

    def _walk_on(self, value: float, gradient: Tensor) -> Lbfgs:
        """Down a slope that grows steeper: no curvature to remember, so on in the same direction."""
        return replace(self, theta=self.trial, value=value, gradient=gradient, step=2 * self.step, trials=0)

    def _shorter(self, value: float, slope: float, there: float) -> float:
        """The minimiser of the parabola through both values and the slope here, or, from a lower point that
        overshot, of the one through both slopes; kept within [0.1, 0.5] or [0.1, 0.9] steps."""
        if value < self.value and there > 0:
            return self.step * min(max(slope / (slope - there), 0.1), 0.9)
        excess = value - self.value - self.step * slope
        best = -0.5 * slope * self.step / excess if 0 < excess < float("inf") else 0.0
        return self.step * min(max(best, 0.1), 0.5)

    def _move(self, value: float, gradient: Tensor) -> Lbfgs:
        theta = self.trial
        move, turn = theta - self.theta, (gradient - self.gradient).to(theta)
        moves, turns = self.moves, self.turns
        if _dot(move, turn) > 1e-10 * float(move.norm()) * float(turn.norm()):
            kept = min(20, max(8, _MEMORY // theta.numel()))
            moves = torch.cat([moves, move[None]])[-kept:]
            turns = torch.cat([turns, turn[None]])[-kept:]
        if moves.shape[0] == 0:
            return Lbfgs.start(theta, value, gradient, 2 * float(move.norm()))
        direction = _two_loops(gradient.to(theta), moves, turns)
        return Lbfgs(theta, value, gradient, direction, 1.0, moves, turns)


def _two_loops(gradient: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    """−H⁻¹·gradient, (P,), by algorithm 7.4; H⁻¹ starts at (s·y)/(y·y) of the latest pair."""
    weights: list[float] = []
    q = -gradient
    products = row_dot(moves, turns)
    for i in reversed(range(moves.shape[0])):
        weight = _dot(moves[i], q) / float(products[i])
        weights.append(weight)
        q = q - weight * turns[i]
    q = q * (float(products[-1]) / _dot(turns[-1], turns[-1]))
    for i, weight in enumerate(reversed(weights)):
        q = q + (weight - _dot(turns[i], q) / float(products[i])) * moves[i]
    return q


def _dot(a: Tensor, b: Tensor) -> float:
    return float(row_dot(a[None], b[None])[0])
