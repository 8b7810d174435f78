import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import FitSettings, Objective, Params, fit, flatten, unflatten
from ecif.objective import LOGIT_SCALE, starting_logit_scale
from tests.ecif.conftest import MakeWorld


@pytest.mark.parametrize("partitions", [1, 3])
def test_value_and_gradient_are_those_of_the_definition(make_world: MakeWorld, partitions: int) -> None:
    world = make_world(partitions=partitions)
    params = {name: tensor + 0.1 for name, tensor in world.params.items()}

    def whole(theta: Tensor) -> Tensor:
        p = unflatten(theta, params)
        losses = [world.objective.batch_loss(p, batch) for batch in world.batches()]
        offset = theta - flatten(world.params)
        return sum(losses) / partitions + 24 * 0.3 / 2 * offset.square().sum()

    value, gradient = world.objective.value_and_gradient(params, world.batches())
    torch.testing.assert_close(torch.tensor(value).double(), whole(flatten(params)), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, torch.func.grad(whole)(flatten(params)))


def test_validation_is_a_mean_per_pair_without_regulariser(make_world: MakeWorld) -> None:
    world = make_world(dtype=torch.float32)
    params = {name: tensor + 0.1 for name, tensor in world.params.items()}
    free = dataclasses.replace(world.objective, l2=0.0)
    value, gradient = free.value_and_gradient(params, world.batches())
    mean, slope = world.objective.validation_value_and_gradient(params, world.batches(), 24)
    assert mean == pytest.approx(value / 24)
    assert slope.dtype == torch.float64
    torch.testing.assert_close(slope, gradient / 24)
    assert torch.equal(world.objective.validation_gradient(params, world.batches(), 24), slope)


def test_settings_out_of_range_are_refused(make_world: MakeWorld) -> None:
    good = make_world().objective
    changes: tuple[dict[str, Any], ...] = (
        {"scale": 0.0},
        {"scale": 101.0},
        {"l2": -1.0},
        {"n_pairs": 0},
        {"prior": {}},
    )
    for change in changes:
        with pytest.raises(ValueError, match=r"scale|l2|n_pairs|prior"):
            dataclasses.replace(good, **change)
    assert isinstance(good, Objective)


def test_parameters_that_require_gradients_are_no_different(make_world: MakeWorld) -> None:
    world = make_world()
    live: Params = {name: torch.nn.Parameter(tensor) for name, tensor in world.params.items()}
    value, gradient = world.objective.value_and_gradient(live, world.batches())
    plain, same = world.objective.value_and_gradient(world.params, world.batches())
    assert value == plain
    assert not gradient.requires_grad
    assert torch.equal(gradient, same)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trained_scale_starts_where_it_can_move(make_world: MakeWorld, scale: float, dtype: torch.dtype) -> None:
    world = make_world(scale=scale, dtype=dtype)
    params = world.params | {LOGIT_SCALE: torch.tensor(starting_logit_scale(scale), dtype=dtype)}
    batch = world.batches()[0]
    assert float(world.objective.scale_of(params)) == pytest.approx(scale, rel=1e-5)
    fixed, free = (world.objective.batch_value_and_gradient(p, batch) for p in (world.params, params))
    assert float(free[0]) == pytest.approx(float(fixed[0]), rel=1e-4)
    assert torch.func.grad(lambda p: world.objective.batch_loss(p, batch))(params)[LOGIT_SCALE] != 0
    capped = params | {LOGIT_SCALE: torch.tensor(9.0, dtype=dtype)}
    assert float(world.objective.scale_of(capped)) == 100.0


def test_a_fit_moves_the_scale_and_stays_under_the_cap(make_world: MakeWorld) -> None:
    world = make_world(n=48, scale=20.0, l2=0.01, duplicates=False)
    params = world.params | {LOGIT_SCALE: torch.tensor(starting_logit_scale(20.0), dtype=torch.float64)}
    objective = dataclasses.replace(world.objective, prior=params)
    result = fit(objective, params, world.batches, FitSettings(epochs=200))
    fixed = fit(world.objective, world.params, world.batches, FitSettings(epochs=200))
    assert result.objective < fixed.objective - 1e-3
    assert abs(float(objective.scale_of(result.params)) - 20.0) > 0.1
    assert float(objective.scale_of(result.params)) <= 100.0
