"""MAGIC: what a fixed-schedule fit would have been without a pair, by the derivative of its end in the pair's weight.

Ilyas and Engstrom 2025, *MAGIC: Near-Optimal Data Attribution for Deep Learning* (arXiv 2504.16430), for losses in
which a pair stands in the terms of others. Each pair of a batch has a weight w_n, 1 in the fit. It multiplies the
pair's own loss and its place in every other denominator,

    L_batch(w) = Σ_n w_n · [ log(e^{S_nn} + Σ_{j≠n} w_j e^{S_nj}) − S_nn ] + the same of Sᵀ,

so that w_n = 0 deletes it, and ∂L_batch/∂w_n = Pos_n + Neg_n, the paper's first order (`taylor`). With `exact` it is
L(batch) − L(batch without n), the slope of (1 − w_n)·L(batch without n) + w_n·L(batch). In the sigmoid loss w_n w_m
multiplies the cell (n, m), and both are the same.

The fit is θ_{t+1}, m_{t+1}, v_{t+1} = Adam(θ_t, m_t, v_t, g_t), g_t = ∇L_{B(t)}(θ_t; w) + c (θ_t − θ_prior). Backwards
through it, with a bar for the derivative of L_val(θ_T) in a quantity,

    dL_val/dw_n = Σ_{t: n ∈ B(t)} ḡ_t · ∇(Pos_n + Neg_n)(θ_t),      θ̄_t = θ̄_{t+1} + (∇²L_{B(t)}(θ_t) + c) ḡ_t,

and m̄, v̄ by the chain rule of Adam's formulas. So every step asks for one Hessian-vector product, and scores all pairs
of its batch along −ḡ_t as any influence does (`scoring`): no curvature is inverted, and nothing has to be stationary.
The sign is that of influence: a negative score marks a harmful pair.

Only every √T-th state of the fit is kept; those between are made again, a stretch at a time: about 2√T are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.fit.adam import BETA, EPSILON, Adam
from ecif.fit.scheduled import OnStep, ScheduledFit
from ecif.parameters import Params, unflatten
from ecif.roles import Negative
from ecif.scoring import score_batch


@dataclass(frozen=True)
class Magic:
    """What the derivative says.

    Attributes:
        params: where the fit ends.
        loss: L_val there.
        positive, negative: for each batch (B,) float64, the parts of its pairs' own loss and of their place in the
            denominators of others, summed over the epochs. A pair's score is the sum over all its batches.
        directions: −ḡ_t of every step, (T, P), where they were asked for: a set of pairs is scored along them.
        thetas: θ_t of every step, (T, P), likewise.
    """

    params: Params
    loss: float
    positive: list[Tensor]
    negative: list[Tensor]
    directions: Tensor | None
    thetas: Tensor | None


def magic(
    fit: ScheduledFit,
    validation: list[Batch],
    n_validation: int,
    mode: Negative = "exact",
    *,
    keep: bool = False,
    on_step: OnStep | None = None,
) -> Magic:
    """Fit, and go back through the fit.

    Args:
        validation: batches of the n_validation pairs whose mean loss is L_val.
        keep: directions and points of every step too; for small fits.
        on_step: told how many steps are done, of about 3T.

    Raises:
        ValueError: a gradient on the way is not finite.
    """
    walk = _Walk(fit, on_step)
    stretch = max(1, math.isqrt(fit.steps))
    stored = [fit.opening()]
    now = stored[0]
    for step in range(fit.steps):
        now = walk.forward(now, step)
        if (step + 1) % stretch == 0 and step + 1 < fit.steps:
            stored.append(now)
    params = unflatten(now.theta, fit.start)
    loss, gradient = fit.objective.validation_value_and_gradient(params, validation, n_validation)
    back = _Adjoint(gradient.to(now.theta), torch.zeros_like(now.theta), torch.zeros_like(now.theta))
    positive = [torch.zeros(batch.size, dtype=torch.float64) for batch in fit.batches]
    negative = [torch.zeros(batch.size, dtype=torch.float64) for batch in fit.batches]
    directions: list[Tensor] = []
    thetas: list[Tensor] = []
    last = fit.steps
    while stored:
        states = [stored.pop()]
        first = len(stored) * stretch
        for step in range(first, last - 1):
            states.append(walk.forward(states[-1], step))
        for step in range(last - 1, first - 1, -1):
            before = states.pop()
            direction, back = walk.backward(before, step, back)
            place = step % len(fit.batches)
            at = unflatten(before.theta, fit.start)
            scores = score_batch(fit.objective, at, fit.batches[place], direction[None], mode)
            positive[place] += scores.positive[0].double().cpu()
            negative[place] += scores.negative[0].double().cpu()
            if keep:
                directions.append(direction)
                thetas.append(before.theta)
        last = first
    return Magic(
        params,
        loss,
        positive,
        negative,
        torch.stack(directions[::-1]) if keep else None,
        torch.stack(thetas[::-1]) if keep else None,
    )


def magic_bytes(parameters: int, steps: int, width: int = 8) -> int:
    """What the states of a fit take that are held at once, in bytes; width: of a number."""
    return 3 * parameters * width * (2 * math.isqrt(steps) + 4)


@dataclass(frozen=True)
class _Adjoint:
    """The derivatives of L_val(θ_T) in a state of Adam: θ̄, m̄, v̄, (P,) each."""

    theta: Tensor
    mean: Tensor
    square: Tensor


class _Walk:
    """Steps of one fit, both ways, counted."""

    def __init__(self, fit: ScheduledFit, on_step: OnStep | None) -> None:
        self._fit, self._on_step, self._done = fit, on_step, 0

    def forward(self, now: Adam, step: int) -> Adam:
        self._count()
        return self._fit.advance(now, step)

    def backward(self, before: Adam, step: int, after: _Adjoint) -> tuple[Tensor, _Adjoint]:
        """(−ḡ of the step that was made from `before`, the adjoint of `before`)."""
        self._count()
        fit, t = self._fit, step + 1
        gradient, product = self._gradient_and_product(before.theta, step)
        mean = torch.lerp(gradient, before.mean, BETA[0])
        square = torch.lerp(gradient.square(), before.square, BETA[1])
        rate, unbiased = fit.rate(step) / (1 - BETA[0] ** t), 1 - BETA[1] ** t
        root = (square / unbiased + fit.schedule.root).sqrt()
        spread = root + EPSILON
        # θ' = θ − rate · m'/spread, m' = β₁ m + (1 − β₁) g, v' = β₂ v + (1 − β₂) g²
        mean_bar = after.mean - rate / spread * after.theta
        square_bar = after.square + rate * mean / spread.square() / (2 * root * unbiased) * after.theta
        gradient_bar = (1 - BETA[0]) * mean_bar + 2 * (1 - BETA[1]) * gradient * square_bar
        theta_bar = after.theta + product(gradient_bar) + fit.pull * gradient_bar
        return -gradient_bar, _Adjoint(theta_bar, BETA[0] * mean_bar, BETA[1] * square_bar)

    def _gradient_and_product(self, theta: Tensor, step: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """g of a step (P,), and ∇²L_batch as a map of vectors (P,)."""
        fit = self._fit
        params = {name: tensor.detach().requires_grad_() for name, tensor in unflatten(theta, fit.start).items()}
        names = sorted(params)
        leaves = [params[name] for name in names]
        loss = fit.objective.batch_loss(params, fit.batch(step))
        slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        slope = torch.cat([one.flatten() for one in slopes])

        def product(vector: Tensor) -> Tensor:
            if not slope.requires_grad:  # a lone pair has no loss
                return torch.zeros_like(vector)
            bent = torch.autograd.grad(slope, leaves, vector, materialize_grads=True)
            return torch.cat([one.flatten() for one in bent])

        return slope.detach() + fit.pull * (theta - fit.prior()), product

    def _count(self) -> None:
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done)
