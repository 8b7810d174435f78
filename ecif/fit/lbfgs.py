"""L-BFGS as a state that is shown one evaluation at a time, so that a fit can stop between any two.

Nocedal and Wright, *Numerical Optimization*, algorithms 7.4 and 7.5, with the strong Wolfe line search of
`line_search`, which makes every remembered pair one of positive curvature. Departures: where the search ends without
a point that fulfils the conditions its lowest trial is taken, and its pair is remembered only if the curvature is
positive; where there is no lower trial, memory is dropped and steepest descent tried before the search is declared
stuck.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecif.fit.line_search import LineSearch
from ecif.parameters import row_dot

_MEMORY = 1 << 27  # numbers in moves and in turns each, but between 8 and 20 pairs


@dataclass(frozen=True)
class Lbfgs:
    """The accepted point and the search under way from it.

    Attributes:
        theta: (P,) accepted point; value, gradient (P,) float64: the objective there.
        direction: (P,); line: the search along it, whose next trial is theta + line.step·direction.
        low_gradient: (P,) float64, the gradient at the line's lowest point so far.
        moves, turns: (m, P), accepted steps and the changes of gradient they brought, oldest first.
        stuck: neither L-BFGS nor steepest descent finds a lower point.
    """

    theta: Tensor
    value: float
    gradient: Tensor
    direction: Tensor
    line: LineSearch
    low_gradient: Tensor
    moves: Tensor
    turns: Tensor
    stuck: bool = False

    @classmethod
    def start(cls, theta: Tensor, value: float, gradient: Tensor, first_length: float) -> Lbfgs:
        """At an evaluated point; the first trial is `first_length` away down the gradient."""
        empty = theta.new_zeros(0, theta.numel())
        direction = -gradient.to(theta)
        step = first_length / max(float(gradient.norm()), 1e-300)
        return cls._along(theta, value, gradient, direction, step, empty, empty)

    @classmethod
    def _along(
        cls,
        theta: Tensor,
        value: float,
        gradient: Tensor,
        direction: Tensor,
        step: float,
        moves: Tensor,
        turns: Tensor,
    ) -> Lbfgs:
        line = LineSearch.start(value, _dot(gradient, direction), step)
        return cls(theta, value, gradient, direction, line, gradient, moves, turns)

    @property
    def trial(self) -> Tensor:
        """(P,), the point to evaluate next."""
        return self.theta + self.line.step * self.direction

    @property
    def best(self) -> tuple[Tensor, float, Tensor]:
        """(theta, value, gradient) of the lowest point evaluated so far that descent accepts."""
        low = self.line.low
        if low.value >= self.value:
            return self.theta, self.value, self.gradient
        return self.theta + low.step * self.direction, low.value, self.low_gradient

    def observe(self, value: float, gradient: Tensor) -> Lbfgs:
        """The state after the objective at `trial` is known: moved there, or with another step to try."""
        line = self.line.observe(value, _dot(gradient, self.direction))
        now = replace(self, line=line)
        if line.low.step == self.line.step:
            now = replace(now, low_gradient=gradient)
        if line.accepted or (line.exhausted and line.low.step > 0):
            return now._move()
        if not line.exhausted:
            return now
        if self.moves.shape[0] == 0:
            return replace(now, stuck=True)
        length = line.step * float(self.direction.norm())
        return Lbfgs.start(self.theta, self.value, self.gradient, length)

    def _move(self) -> Lbfgs:
        theta, value, gradient = (
            self.theta + self.line.low.step * self.direction,
            self.line.low.value,
            self.low_gradient,
        )
        move, turn = theta - self.theta, (gradient - self.gradient).to(theta)
        moves, turns = self.moves, self.turns
        if _dot(move, turn) > 1e-10 * float(move.norm()) * float(turn.norm()):
            most = min(20, max(8, _MEMORY // theta.numel()))
            moves = torch.cat([moves, move[None]])[-most:]
            turns = torch.cat([turns, turn[None]])[-most:]
        if moves.shape[0] == 0:
            return Lbfgs.start(theta, value, gradient, 2 * float(move.norm()))
        direction = _two_loops(gradient.to(theta), moves, turns)
        if not _dot(gradient, direction) < 0:  # only rounding can do this
            return Lbfgs.start(theta, value, gradient, float(move.norm()))
        return Lbfgs._along(theta, value, gradient, direction, 1.0, moves, turns)


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
