"""Pairs taken out of a fitted model by the curvature of those that stay."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from ecif import Batch, FitSettings, GaussNewton, fit, flatten, removal_gradient, unflatten
from ecif.datamodelling import random_subsets
from ecif.edit import Edit, Leaving, Reduced, edit
from ecif.parameters import Params
from tests.ecif.conftest import HeadsWorld, MakeHeads


@pytest.fixture(scope="module")
def world(make_heads: MakeHeads) -> HeadsWorld:
    made = make_heads(seed=0, scale=5.0, width=4, n=64, n_validation=16)
    made.objective = replace(made.objective, linear=True)
    return made


@pytest.fixture(scope="module")
def params(world: HeadsWorld) -> Params:
    found = fit(world.objective, world.params, world.batches, FitSettings(epochs=300, tolerance=1e-8))
    assert found.stationary
    return found.params


def leaving(world: HeadsWorld, subset: Tensor) -> Leaving:
    def one_pass() -> Iterator[tuple[Batch, Tensor]]:
        return ((batch, subset[batch.image_group]) for batch in world.batches())

    return one_pass


def removed(world: HeadsWorld, params: Params, subset: Tensor) -> Tensor:
    parts = [removal_gradient(world.objective, params, *part) for part in leaving(world, subset)()]
    return torch.stack(parts).sum(0)


def without(world: HeadsWorld, params: Params, subset: Tensor, most_steps: int) -> Edit:
    near = GaussNewton(world.objective, params, world.batches, tolerance=1e-6)
    reduced = Reduced(world.objective, params, leaving(world, subset))
    return edit(reduced, removed(world, params, subset), most_steps=most_steps, stop=1e-3, tolerance=1e-4, near=near)


def test_steps_lead_to_where_a_refit_ends(world: HeadsWorld, params: Params) -> None:
    before = flatten(params)
    subset = random_subsets(world.n, 0.1, 1, 0)[0]
    gone = [world.take(batch.image_group[~leaves]) for batch, leaves in leaving(world, subset)()]
    refit = fit(world.objective, params, partial(iter, gone), FitSettings(epochs=300, tolerance=1e-8))
    there = flatten(refit.params)
    influence = GaussNewton(world.objective, params, world.batches, tolerance=1e-6)
    old = influence.solve(removed(world, params, subset)[None]).x[0]
    one, many = (without(world, params, subset, steps) for steps in (1, 20))
    off = [float((before + step - there).norm()) for step in (old, one.step, many.step)]
    assert off[0] > off[1] > off[2]
    assert off[2] < 0.02 * float((there - before).norm())
    assert one.steps == 1
    assert many.reduced_gradient <= 1e-3 < one.reduced_gradient


def test_of_a_model_at_no_minimum_the_proximal_objective_is_minimised(world: HeadsWorld) -> None:
    start = {name: weight + 0.1 for name, weight in world.params.items()}
    subset = random_subsets(world.n, 0.1, 1, 1)[0]
    reduced = Reduced(world.objective, start, leaving(world, subset), damping=0.1, proximal=True)
    taken = removed(world, start, subset)
    torch.testing.assert_close(reduced.gradient(start), -taken, rtol=1e-9, atol=1e-9)
    found = edit(reduced, taken, most_steps=20, stop=1e-3, tolerance=1e-4)
    assert found.reduced_gradient <= 1e-3
    there = unflatten(flatten(start) + found.step, start)
    assert float(reduced.gradient(there).norm()) <= 1e-3 * float(taken.norm())


def test_who_takes_nothing_out_moves_nothing(world: HeadsWorld, params: Params) -> None:
    nobody = torch.zeros(world.n, dtype=torch.bool)
    found = without(world, params, nobody, 3)
    assert (found.steps, found.passes, float(found.step.norm())) == (0, 0, 0.0)


def test_a_batch_that_all_leave_is_left_out(world: HeadsWorld, params: Params) -> None:
    everyone = torch.zeros(world.n, dtype=torch.bool)
    everyone[world.batches()[0].image_group] = True
    found = without(world, params, everyone, 2)
    assert found.steps >= 1
    assert found.reduced_gradient < 1
