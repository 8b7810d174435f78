import dataclasses

import pytest
import torch

from ecif import FitSettings, fit, flatten


def run(world, settings, **more):
    return fit(world.objective, world.params, world.batches, settings, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fit_reaches_stationarity_and_says_so(make_world, dtype):
    world = make_world(dtype=dtype)
    result = run(world, FitSettings(epochs=200, adam_share=0.2))
    assert result.stationary
    assert result.decrement_bound <= 1e-3
    assert result.epochs_done < 200
    value, gradient = world.objective.value_and_gradient(result.params, world.batches())
    assert result.objective == pytest.approx(value, rel=1e-6)
    assert result.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-3, abs=1e-6)
    assert result.decrement_bound == pytest.approx(result.gradient_norm**2 / (2 * 24 * 0.3), rel=1e-6)
    assert len(result.checkpoints) == 4


def test_a_fit_at_a_minimum_stops_at_once(make_world):
    world = make_world()
    there = run(world, FitSettings(epochs=300, adam_share=0.1, tolerance=1e-8)).params
    again = fit(world.objective, there, world.batches, FitSettings(epochs=300, tolerance=1e-7))
    assert again.epochs_done == 0
    assert again.stationary
    assert torch.equal(flatten(again.params), flatten(there))


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_few_epochs_still_improve(make_world, epochs, seed):
    world = make_world(seed=seed, dtype=torch.float32)
    before, _ = world.objective.value_and_gradient(world.params, world.batches())
    result = run(world, FitSettings(epochs=epochs))
    assert result.objective < before
    assert result.epochs_done == epochs
    assert not result.stationary


def test_a_ruinous_learning_rate_does_not_leave_the_start_worse(make_world):
    world = make_world(dtype=torch.float32)
    before, _ = world.objective.value_and_gradient(world.params, world.batches())
    assert run(world, FitSettings(epochs=5, learning_rate=100.0)).objective <= before


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_resumed_fit_equals_an_undisturbed_one(make_world, partitions):
    world = make_world(dtype=torch.float32, partitions=partitions)
    settings = FitSettings(epochs=12, state_every=2, tolerance=1e-12)
    states, epochs = [], []
    whole = run(world, settings, on_state=states.append, on_epoch=lambda e, _: epochs.append(e))
    assert epochs == list(range(1, 13))
    for state in states:
        copied = {name: tensor.clone() for name, tensor in state.items()}
        later = []
        resumed = run(world, settings, state=copied, on_epoch=lambda e, _, later=later: later.append(e))
        assert torch.equal(flatten(resumed.params), flatten(whole.params))
        assert later == list(range(int(state["epoch"]) + 1, 13))
        for a, b in zip(resumed.checkpoints, whole.checkpoints, strict=True):
            assert torch.equal(flatten(a), flatten(b))
    other = make_world(dtype=torch.float64)
    with pytest.raises(ValueError, match="other parameters"):
        run(other, settings, state=states[0])


def test_without_l2_the_gradient_is_judged_relative_to_the_start(make_world):
    world = make_world(l2=0.0)
    _, gradient = world.objective.value_and_gradient(world.params, world.batches())
    result = run(world, FitSettings(epochs=400, tolerance=0.05))
    assert result.decrement_bound == float("inf")
    assert result.stationary == (result.gradient_norm <= 0.05 * float(gradient.norm()))
    assert result.stationary


def test_a_random_transformer_learns_in_few_epochs(make_world):
    """Scope all: both towers from scratch."""
    torch.manual_seed(0)
    text = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    image = torch.nn.Sequential(torch.nn.Linear(24, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
    both = torch.nn.ModuleDict({"text": text, "image": image})
    params = {name: tensor.detach() for name, tensor in both.named_parameters()}

    def embed(p, images, texts):
        def part(name):
            return {k.removeprefix(name): v for k, v in p.items() if k.startswith(name)}

        call = torch.func.functional_call
        return call(text, part("text."), (texts,)).mean(1), call(image, part("image."), (images,))

    base = make_world(n=512, batch_size=64, dtype=torch.float32, duplicates=False)
    texts = torch.nn.functional.pad(base.data.texts, (0, 22))[:, None] * torch.ones(1, 4, 1)
    images = torch.nn.functional.pad(base.data.images, (0, 14))
    base.data = dataclasses.replace(base.data, images=images, texts=texts)
    base.objective = dataclasses.replace(base.objective, embed=embed, prior=params, l2=1e-4, scale=14.0)
    before, _ = base.objective.value_and_gradient(params, base.batches())
    result = fit(base.objective, params, base.batches, FitSettings(epochs=12))
    assert result.objective < 0.6 * before


def test_senseless_settings_are_refused():
    for change in ({"epochs": -1}, {"adam_share": 2.0}, {"tolerance": 0.0}, {"learning_rate": -1.0}):
        with pytest.raises(ValueError, match=r"epochs|adam_share|learning_rate"):
            FitSettings(**({"epochs": 3} | change))
