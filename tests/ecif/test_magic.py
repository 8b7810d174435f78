"""MAGIC: the derivative of a fit on a schedule in every pair's weight, against differences of that weight and against
fits without the pairs."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import Batch, Objective, score_removals
from ecif.datamodelling import datamodelling_score, random_subsets
from ecif.fit.adam import Adam, automatic_learning_rate
from ecif.fit.scheduled import Schedule, ScheduledFit, typical_square
from ecif.losses import SIGMOID
from ecif.methods.magic import magic, magic_bytes
from ecif.parameters import unflatten
from ecif.roles import Negative
from tests.ecif.conftest import HeadsWorld, MakeHeads


def schedule(world: HeadsWorld, epochs: int = 3) -> ScheduledFit:
    batches = list(world.batches())
    root = 0.01 * typical_square(world.objective, world.params, batches)
    return ScheduledFit(
        world.objective, world.params, batches, Schedule(epochs, automatic_learning_rate(world.params), root)
    )


def weighed_loss(objective: Objective, S: Tensor, weights: Tensor) -> Tensor:
    """The loss of a batch with a weight for each pair, written down as the module's docstring has it."""
    own = torch.eye(len(S), dtype=torch.bool)
    if objective.loss is SIGMOID:
        cells = torch.log1p(torch.exp(torch.where(own, -S, S)))
        return (torch.where(own, weights, weights[:, None] * weights) * cells).sum()
    logs = torch.where(own, 0.0, weights.log()[None, :])
    return torch.stack([(weights * ((T + logs).logsumexp(1) - T.diagonal())).sum() for T in (S, S.mT)]).sum()


def validation_after(world: HeadsWorld, fit: ScheduledFit, weights: Tensor) -> float:
    now = fit.opening()
    for step in range(fit.steps):
        batch, theta = fit.batch(step), now.theta.clone().requires_grad_()
        S = world.objective.similarity(unflatten(theta, fit.start), batch)
        (gradient,) = torch.autograd.grad(weighed_loss(world.objective, S, weights[batch.image_group]), theta)
        gradient = gradient + fit.pull * (now.theta - fit.prior())
        now = now.step(gradient, fit.rate(step), fit.schedule.root)
    return world.validation(unflatten(now.theta, fit.start))[0]


def validating(world: HeadsWorld) -> list[Batch]:
    return [world.take(cut) for cut in world.validation_plan]


def scores_of(world: HeadsWorld, fit: ScheduledFit, mode: Negative) -> Tensor:
    found = magic(fit, validating(world), world.n_validation, mode)
    scores = torch.zeros(world.n, dtype=torch.float64)
    for batch, positive, negative in zip(fit.batches, found.positive, found.negative, strict=True):
        scores[batch.image_group] += positive + negative
    return scores


@pytest.mark.parametrize("given", [{"seed": 0, "scale": 5.0}, {"seed": 1, "loss": SIGMOID, "scale": 5.0, "bias": -3.0}])
def test_the_derivative_in_a_weight_is_that_of_finite_differences(make_heads: MakeHeads, given: dict[str, Any]) -> None:
    """As long a fit is cut into stretches of four steps, whose states are made again."""
    world = make_heads(n=48, n_validation=16, batch_size=16, width=4, **given)
    fit = schedule(world, epochs=6)
    scores = scores_of(world, fit, "taylor")
    for pair in (0, 17, 40):
        shift = torch.zeros(world.n, dtype=torch.float64)
        shift[pair] = 1e-5
        up, down = (validation_after(world, fit, 1 + sign * shift) for sign in (1, -1))
        assert float(scores[pair]) == pytest.approx(-(up - down) / 2e-5, rel=1e-5)


def test_the_exact_form_is_the_slope_of_a_batch_with_and_without_the_pair(make_heads: MakeHeads) -> None:
    world = make_heads(seed=2, n=32, n_validation=16, batch_size=16, width=4, scale=5.0)
    fit = schedule(world)
    pair = 5

    def validation_at(weight: float) -> float:
        now = fit.opening()
        for step in range(fit.steps):
            batch = fit.batch(step)
            stays = batch.image_group != pair
            without = world.take(batch.image_group[stays])
            at = unflatten(now.theta, fit.start)
            whole = world.objective.batch_value_and_gradient(at, batch)[1]
            gradient = weight * whole + (1 - weight) * world.objective.batch_value_and_gradient(at, without)[1]
            now = now.step(gradient + fit.pull * (now.theta - fit.prior()), fit.rate(step), fit.schedule.root)
        return world.validation(unflatten(now.theta, fit.start))[0]

    slope = (validation_at(1 + 1e-5) - validation_at(1 - 1e-5)) / 2e-5
    assert float(scores_of(world, fit, "exact")[pair]) == pytest.approx(-slope, rel=1e-5)


def retrained(world: HeadsWorld, fit: ScheduledFit, subsets: Tensor) -> Tensor:
    """Where the fit ends without each of (m, n) bool sets, (m, P), deleted by −1e300: no code of `roles`."""

    def left(batch: Batch, theta: Tensor, removed: Tensor) -> Tensor:
        S = world.objective.similarity(unflatten(theta, fit.start), batch)
        rows = S.masked_fill(removed[None, :], -1e300).log_softmax(1).diagonal()
        columns = S.masked_fill(removed[:, None], -1e300).log_softmax(0).diagonal()
        return -torch.where(removed, 0.0, rows + columns).sum()

    now = Adam.start(fit.opening().theta.expand(len(subsets), -1).clone())
    for step in range(fit.steps):
        batch = fit.batch(step)
        slope = torch.func.vmap(torch.func.grad(partial(left, batch)))
        gradient = slope(now.theta, subsets[:, batch.image_group]) + fit.pull * (now.theta - fit.prior())
        now = now.step(gradient, fit.rate(step), fit.schedule.root)
    return now.theta


def test_fits_of_the_same_seed_without_pairs_come_out_as_told_where_none_is_at_a_minimum(
    make_heads: MakeHeads,
) -> None:
    """The fit, at the rate that a job takes, has made five passes."""
    world = make_heads(seed=0, l2=1e-3)
    fit = schedule(world, epochs=5)
    found = magic(fit, validating(world), world.n_validation, keep=True)
    gradient = world.objective.value_and_gradient(found.params, fit.batches)[1]
    assert float(gradient.square().sum()) / (2 * world.objective.ridge()) > 1
    subsets = random_subsets(world.n, 0.05, 40, 0)
    ends = retrained(world, fit, subsets)
    actual = [world.validation(unflatten(theta, fit.start))[0] - found.loss for theta in ends]
    assert found.directions is not None
    assert found.thetas is not None
    sets = torch.zeros(len(subsets), dtype=torch.float64)
    for step in range(fit.steps):
        batch, at = fit.batch(step), unflatten(found.thetas[step], fit.start)
        leaving = subsets[:, batch.image_group]
        sets += score_removals(world.objective, at, batch, found.directions[step][None], leaving)[0]
    score = datamodelling_score(sets, torch.tensor(actual, dtype=torch.float64), resamples=2)
    assert score.spearman >= 0.98
    assert 0.9 < score.slope < 1.1


def test_the_states_that_are_held_grow_with_the_root_of_the_steps() -> None:
    assert magic_bytes(1000, 40_000) < 11 * magic_bytes(1000, 400)
    assert magic_bytes(2000, 400) == 2 * magic_bytes(1000, 400)
