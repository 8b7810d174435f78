import dataclasses

import pytest
import torch

from ecif import Objective, flatten, unflatten


@pytest.mark.parametrize("partitions", [1, 3])
def test_value_and_gradient_are_those_of_the_definition(make_world, partitions):
    world = make_world(partitions=partitions)
    params = {name: tensor + 0.1 for name, tensor in world.params.items()}

    def whole(theta):
        p = unflatten(theta, params)
        losses = [world.objective.batch_loss(p, batch) for batch in world.batches()]
        offset = theta - flatten(world.params)
        return sum(losses) / partitions + 24 * 0.3 / 2 * offset.square().sum()

    value, gradient = world.objective.value_and_gradient(params, world.batches())
    torch.testing.assert_close(torch.tensor(value).double(), whole(flatten(params)), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, torch.func.grad(whole)(flatten(params)))


def test_validation_is_a_mean_per_pair_without_regulariser(make_world):
    world = make_world(dtype=torch.float32)
    params = {name: tensor + 0.1 for name, tensor in world.params.items()}
    free = dataclasses.replace(world.objective, l2=0.0)
    value, gradient = free.value_and_gradient(params, world.batches())
    mean, slope = world.objective.validation_value_and_gradient(params, world.batches(), 24)
    assert mean == pytest.approx(value / 24)
    assert slope.dtype == torch.float64
    torch.testing.assert_close(slope, gradient / 24)
    assert torch.equal(world.objective.validation_gradient(params, world.batches(), 24), slope)


def test_settings_out_of_range_are_refused(make_world):
    good = make_world().objective
    for change in ({"scale": 0.0}, {"scale": 101.0}, {"l2": -1.0}, {"n_pairs": 0}, {"prior": {}}):
        with pytest.raises(ValueError, match=r"scale|l2|n_pairs|prior"):
            dataclasses.replace(good, **change)
    assert isinstance(good, Objective)


def test_parameters_that_require_gradients_are_no_different(make_world):
    world = make_world()
    live = {name: torch.nn.Parameter(tensor) for name, tensor in world.params.items()}
    value, gradient = world.objective.value_and_gradient(live, world.batches())
    plain, same = world.objective.value_and_gradient(world.params, world.batches())
    assert value == plain
    assert not gradient.requires_grad
    assert torch.equal(gradient, same)
