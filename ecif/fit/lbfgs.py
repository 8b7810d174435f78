"""L-BFGS as a state that is shown one evaluation at a time, so that a fit can stop between any two.

Nocedal and Wright, *Numerical Optimization*, algorithms 7.4 and 7.5, with the strong Wolfe line search of
`line_search`, which makes every remembered pair one of positive curvature. The two loops run on the inner products of
what is remembered (Chen, Wang and Zhou 2014, *Large-scale L-BFGS using MapReduce*), so that a step reads the memory
twice and not forty times. Departures: where the search ends without a point that fulfils the conditions its lowest
trial is taken, and its pair is remembered only if the curvature is positive; where there is no lower trial, memory is
dropped and steepest descent tried before the search is declared stuck.
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
        products: (2m, 2m) float64, the inner products of moves and turns, in this order.
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
    products: Tensor
    stuck: bool = False

    @classmethod
    def start(cls, theta: Tensor, value: float, gradient: Tensor, first_length: float) -> Lbfgs:
        """At an evaluated point; the first trial is `first_length` away down the gradient."""
        empty = theta.new_zeros(0, theta.numel())
        direction = -gradient.to(theta)
        step = first_length / max(float(gradient.norm()), 1e-300)
        none = torch.zeros(0, 0, dtype=torch.float64, device=theta.device)
        return cls._along(theta, value, gradient, direction, step, empty, empty, none)

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
        products: Tensor,
    ) -> Lbfgs:
        line = LineSearch.start(value, _dot(gradient, direction), step)
        return cls(theta, value, gradient, direction, line, gradient, moves, turns, products)

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
        moves, turns, products = self.moves, self.turns, self.products
        if _dot(move, turn) > 1e-10 * float(move.norm()) * float(turn.norm()):
            most = min(20, max(8, _MEMORY // theta.numel()))
            moves = torch.cat([moves, move[None]])[-most:]
            turns = torch.cat([turns, turn[None]])[-most:]
            products = _products(products, moves, turns)
        if moves.shape[0] == 0:
            return Lbfgs.start(theta, value, gradient, 2 * float(move.norm()))
        direction = _two_loops(gradient.to(theta), moves, turns, products)
        if not _dot(gradient, direction) < 0:  # only rounding can do this
            return Lbfgs.start(theta, value, gradient, float(move.norm()))
        return Lbfgs._along(theta, value, gradient, direction, 1.0, moves, turns, products)


def _products(before: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    """(2m, 2m), those of `before` less its oldest pair where memory is full, with the products of the newest pair."""
    m, known = len(moves), before.shape[0] // 2
    n_older = m - 1
    old = torch.arange(known - n_older, known)
    places = torch.cat([torch.arange(n_older), m + torch.arange(n_older)])
    after = before.new_zeros(2 * m, 2 * m)
    if n_older:
        after[places[:, None], places] = before[torch.cat([old, known + old])[:, None], torch.cat([old, known + old])]
    newest = _inner(torch.stack([moves[-1], turns[-1]]), moves, turns)
    for place, row in zip((m - 1, 2 * m - 1), newest, strict=True):
        after[place], after[:, place] = row, row
    return after


def _inner(rows: Tensor, moves: Tensor, turns: Tensor, chunk: int = 1 << 16) -> Tensor:
    """Inner products (r, 2m) float64 of rows (r, P) with all that is remembered, a chunk of columns at a time."""
    total = torch.zeros(len(rows), 2 * len(moves), dtype=torch.float64, device=rows.device)
    for row, move, turn in zip(*(torch.split(part, chunk, dim=1) for part in (rows, moves, turns)), strict=True):
        total += row.double() @ torch.cat([move, turn]).double().mT
    return total


def _two_loops(gradient: Tensor, moves: Tensor, turns: Tensor, products: Tensor) -> Tensor:
    """−H⁻¹·gradient, (P,), by algorithm 7.4; H⁻¹ starts at (s·y)/(y·y) of the latest pair.

    What the loops change is a combination of the gradient, moves and turns; its inner products with moves and turns
    follow from theirs, so the loops are of numbers.
    """
    m = len(moves)
    table = products.cpu()
    along = -_inner(gradient[None], moves, turns)[0].cpu()  # of q with moves, then turns
    of_gradient, shares, weights = -1.0, torch.zeros(2 * m, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    for i in reversed(range(m)):
        weights[i] = along[i] / table[i, m + i]
        shares[m + i] -= weights[i]
        along = along - weights[i] * table[m + i]
    scale = table[m - 1, 2 * m - 1] / table[2 * m - 1, 2 * m - 1]
    of_gradient, shares, along = of_gradient * float(scale), shares * scale, along * scale
    for i in range(m):
        step = weights[i] - along[m + i] / table[i, m + i]
        shares[i] += step
        along = along + step * table[i]
    shares = shares.to(moves)
    return of_gradient * gradient + shares[:m] @ moves + shares[m:] @ turns


def _dot(a: Tensor, b: Tensor) -> float:
    return float(row_dot(a[None], b[None])[0])
