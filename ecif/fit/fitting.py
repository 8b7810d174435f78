"""Bring the parameters to a stationary point of the objective, resumably (`docs/design.md`, section 10).

Influence is a statement about a minimum. Mini-batch Adam comes near one where there are many batches; full-batch
L-BFGS then reaches it, every evaluation counting as an epoch (`settings` says who gets how many). Stationarity is
stated in units of the summed loss: the Newton decrement ½·gᵀH⁻¹g is at most ½‖g‖²/(N·δ) where the loss is convex, as
H ⪰ N·δ·I there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecif.fit.adam import Adam, automatic_learning_rate, scheduled
from ecif.fit.lbfgs import Lbfgs
from ecif.fit.settings import FitResult, FitSettings
from ecif.fit.state import FitState
from ecif.objective import Batches, Objective, in_bfloat16
from ecif.parameters import Params, flatten, unflatten
from ecif.solve.solution import OnState, State

OnEpoch = Callable[[int, Params], None]
"""(epochs done, parameters then); after a resumption, for the epochs that end after it."""


def fit(
    objective: Objective,
    params: Params,
    batches: Batches,
    settings: FitSettings,
    *,
    state: State | None = None,
    on_state: OnState | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Minimise the objective from `params`. Deterministic: all randomness lies in the planned batches.

    Args:
        state: what `on_state` was last handed; the result then equals that of an undisturbed fit.
        on_state: called with tensors only, every few Adam steps, and before every evaluation but the opening one, so
            that whoever cannot make one here goes on from there.
        on_epoch: called after every epoch with its parameters.

    Raises:
        ValueError: the state belongs to other parameters, or the objective is not finite at the start.
    """
    fitting = _Fitting(objective, params, batches, settings)
    now = fitting.opening() if state is None else FitState.from_state(state, flatten(params))
    if on_state is not None:
        on_state(now.to_state())
    while not fitting.ended(now):
        for step in fitting.advance(now):
            if on_epoch is not None and step.epoch > now.epoch:
                on_epoch(step.epoch, unflatten(step.theta, params))
            if on_state is not None:
                on_state(step.to_state())
            now = step
    return fitting.result(now)


@dataclass(frozen=True)
class _Fitting:
    """One fit's givens; every method is a pure step from one `FitState` to the next."""

    objective: Objective
    params: Params
    batches: Batches
    settings: FitSettings

    def opening(self) -> FitState:
        theta = flatten(self.params).detach()
        seen = self.objective.evaluate(self.params, self.batches())
        value, gradient = seen.value, seen.gradient
        if not abs(value) < float("inf"):
            raise ValueError(f"the objective is {value} at the starting parameters")
        checkpoints = theta.new_zeros(0, theta.numel())
        adam_epochs = self.settings.adam_epochs(seen.batches)
        return FitState(theta, value, gradient, checkpoints, Adam.start(theta), torch.zeros_like(gradient), adam_epochs)

    def ended(self, now: FitState) -> bool:
        if now.search is None and now.adam.steps:  # amid Adam: no full gradient to judge by
            return False
        if now.epoch >= self.settings.epochs or self._stationary(now):
            return True
        return now.search is not None and now.search.stuck

    def advance(self, now: FitState) -> Iterator[FitState]:
        if now.epoch < now.adam_epochs:
            yield from self._adam_epoch(now)
        else:
            yield self._search(now)

    def result(self, now: FitState) -> FitResult:
        theta, value, gradient = self._judged(now)
        checkpoints = now.checkpoints if now.checkpoints.shape[0] else theta[None]
        return FitResult(
            params=unflatten(theta, self.params),
            epochs_done=now.epoch,
            objective=value,
            gradient_norm=float(gradient.norm()),
            decrement_bound=self._decrement_bound(gradient),
            stationary=self._stationary(now),
            checkpoints=[unflatten(copy, self.params) for copy in checkpoints],
        )

    def _adam_epoch(self, now: FitState) -> Iterator[FitState]:
        """Adam through one pass, taken up after the batches already stepped through."""
        peak = self.settings.learning_rate
        if peak == "auto":
            peak = automatic_learning_rate(unflatten(now.start, self.params))
        whole = self.objective.n_pairs * self.objective.partitions
        prior = flatten(self.objective.prior).detach()
        objective = self.objective
        if self.settings.adam_precision == "bfloat16":
            objective = replace(objective, embed=in_bfloat16(objective.embed), linear=False)
        for place, batch in enumerate(self.batches()):
            if place < now.batches:
                continue
            # The batch's share of the sum: the l2 pull in proportion to its pairs.
            adam, pairs = now.adam, now.pairs + batch.size
            _, gradient = objective.batch_value_and_gradient(unflatten(adam.theta, self.params), batch)
            gradient = gradient + batch.size * self.objective.l2 * (adam.theta - prior)
            progress = (now.epoch + min(1.0, now.pairs / whole)) / now.adam_epochs
            adam = adam.step(gradient, peak * scheduled(progress))
            now = replace(now, adam=adam, batches=place + 1, pairs=pairs, seen=now.seen + gradient)
            if now.batches % self.settings.state_every == 0:
                yield now
        checkpoints, epoch = now.checkpoints, now.epoch + 1
        done = self._small(now.seen / self.objective.partitions, now)
        if done or self.settings.keeps(epoch, now.adam_epochs):
            checkpoints = torch.cat([checkpoints, now.theta[None]])
        yield replace(
            now,
            checkpoints=checkpoints,
            epoch=epoch,
            batches=0,
            pairs=0,
            seen=torch.zeros_like(now.seen),
            adam_epochs=epoch if done else now.adam_epochs,
        )

    def _search(self, now: FitState) -> FitState:
        """One evaluation: of Adam's end, or of L-BFGS's next trial."""
        search = now.search
        if search is None:
            theta, value, gradient = now.start, now.start_value, now.start_gradient
            first = 0.1 * automatic_learning_rate(unflatten(theta, self.params)) * theta.numel() ** 0.5
            if now.adam.steps:
                reached, at = self._evaluate(now.adam.theta)
                if reached <= value and bool(at.isfinite().all()):  # else Adam's way is forgotten
                    theta, value, gradient = now.adam.theta, reached, at
                begun = Lbfgs.start(theta, value, gradient, first)
                return replace(now, search=begun, epoch=now.epoch + 1)
            search = Lbfgs.start(theta, value, gradient, first)
        return replace(now, search=search.observe(*self._evaluate(search.trial)), epoch=now.epoch + 1)

    def _evaluate(self, theta: Tensor) -> tuple[float, Tensor]:
        return self.objective.value_and_gradient(unflatten(theta, self.params), self.batches())

    def _judged(self, now: FitState) -> tuple[Tensor, float, Tensor]:
        """The point that has a full evaluation: (theta, value, gradient)."""
        if now.search is None:
            return now.start, now.start_value, now.start_gradient
        return now.search.best

    def _decrement_bound(self, gradient: Tensor) -> float:
        ridge = self.objective.ridge()
        return 0.5 * float(gradient.square().sum()) / ridge if ridge > 0 else float("inf")

    def _stationary(self, now: FitState) -> bool:
        return self._small(self._judged(now)[2], now)

    def _small(self, gradient: Tensor, now: FitState) -> bool:
        if self.objective.l2 > 0:
            return self._decrement_bound(gradient) <= self.settings.tolerance
        return float(gradient.norm()) <= self.settings.tolerance * float(now.start_gradient.norm())
