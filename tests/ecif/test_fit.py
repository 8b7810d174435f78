import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ecif import FitResult, FitSettings, Params, fit, flatten, unflatten
from ecif.objective import in_bfloat16
from ecif.solve.solution import State
from tests.ecif.conftest import MakeWorld, World


def run(world: World, settings: FitSettings, **more: Any) -> FitResult:
    return fit(world.objective, world.params, world.batches, settings, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fit_reaches_stationarity_and_says_so(make_world: MakeWorld, dtype: torch.dtype) -> None:
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


def test_a_fit_at_a_minimum_stops_at_once(make_world: MakeWorld) -> None:
    world = make_world()
    there = run(world, FitSettings(epochs=300, adam_share=0.1, tolerance=1e-8)).params
    again = fit(world.objective, there, world.batches, FitSettings(epochs=300, tolerance=1e-7))
    assert again.epochs_done == 0
    assert again.stationary
    assert torch.equal(flatten(again.params), flatten(there))


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_few_epochs_still_improve(make_world: MakeWorld, epochs: int, seed: int) -> None:
    world = make_world(seed=seed, dtype=torch.float32)
    before, _ = world.objective.value_and_gradient(world.params, world.batches())
    result = run(world, FitSettings(epochs=epochs))
    assert result.objective < before
    assert result.epochs_done == epochs
    assert not result.stationary


def test_a_ruinous_learning_rate_does_not_leave_the_start_worse(make_world: MakeWorld) -> None:
    world = make_world(dtype=torch.float32)
    before, _ = world.objective.value_and_gradient(world.params, world.batches())
    assert run(world, FitSettings(epochs=5, learning_rate=100.0)).objective <= before


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_resumed_fit_equals_an_undisturbed_one(make_world: MakeWorld, partitions: int) -> None:
    world = make_world(dtype=torch.float32, partitions=partitions)
    settings = FitSettings(epochs=20, state_every=2, tolerance=1e-12, adam_share=0.3)
    states: list[State] = []
    epochs: list[int] = []
    whole = run(world, settings, on_state=states.append, on_epoch=lambda e, _: epochs.append(e))
    assert epochs == list(range(1, 21))
    for state in states:
        copied = {name: tensor.clone() for name, tensor in state.items()}
        later: list[int] = []
        resumed = run(world, settings, state=copied, on_epoch=lambda e, _, later=later: later.append(e))
        assert torch.equal(flatten(resumed.params), flatten(whole.params))
        assert later == list(range(int(state["epoch"]) + 1, 21))
        for a, b in zip(resumed.checkpoints, whole.checkpoints, strict=True):
            assert torch.equal(flatten(a), flatten(b))
    other = make_world(dtype=torch.float64)
    with pytest.raises(ValueError, match="other parameters"):
        run(other, settings, state=states[0])


def test_without_l2_the_gradient_is_judged_relative_to_the_start(make_world: MakeWorld) -> None:
    world = make_world(l2=0.0)
    _, gradient = world.objective.value_and_gradient(world.params, world.batches())
    result = run(world, FitSettings(epochs=400, tolerance=0.05))
    assert result.decrement_bound == float("inf")
    assert result.stationary == (result.gradient_norm <= 0.05 * float(gradient.norm()))
    assert result.stationary


def test_a_random_transformer_learns_in_few_epochs(make_world: MakeWorld) -> None:
    """Scope all: both towers from scratch."""
    torch.manual_seed(0)
    text = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    image = torch.nn.Sequential(torch.nn.Linear(24, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
    both = torch.nn.ModuleDict({"text": text, "image": image})
    params = {name: tensor.detach() for name, tensor in both.named_parameters()}

    def embed(p: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        def part(name: str) -> Params:
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


def test_adam_gets_the_epochs_that_many_batches_are_worth() -> None:
    few, long = FitSettings(epochs=5), FitSettings(epochs=200)
    assert [few.adam_epochs(batches) for batches in (8, 16, 1000)] == [0, 4, 4]
    assert [long.adam_epochs(batches) for batches in (8, 16, 64, 800)] == [0, 12, 12, 100]
    assert FitSettings(epochs=10, adam_share=0.5).adam_epochs(1) == 5
    assert FitSettings(epochs=0).adam_epochs(100) == 0


def test_heads_with_few_batches_are_stationary_soon(make_world: MakeWorld) -> None:
    result = run(make_world(dtype=torch.float32), FitSettings(epochs=200))
    assert result.stationary
    assert result.epochs_done <= 60


def test_adam_ends_once_it_is_at_stationarity(make_world: MakeWorld) -> None:
    world = make_world(dtype=torch.float32, batch_size=2)
    settings = FitSettings(epochs=300, adam_share=1.0, tolerance=0.5)
    states: list[State] = []
    result = run(world, settings, on_state=states.append)
    assert result.stationary
    assert int(states[-1]["adam_epochs"]) < 250
    assert result.epochs_done <= int(states[-1]["adam_epochs"]) + 3


def test_a_weak_regulariser_does_not_trap_the_search(make_world: MakeWorld) -> None:
    """As low as torch's own strong Wolfe L-BFGS goes (backtracking used to end above it)."""
    for seed in range(2):
        world = make_world(l2=0.03, seed=seed)
        x = flatten(world.params).clone()
        torchs = torch.optim.LBFGS([x], max_iter=100, max_eval=100, line_search_fn="strong_wolfe", history_size=20)

        def evaluate(x: Tensor = x, world: World = world) -> Tensor:
            value, gradient = world.objective.value_and_gradient(unflatten(x.detach(), world.params), world.batches())
            x.grad = gradient
            return torch.tensor(value)

        torchs.step(evaluate)
        result = run(world, FitSettings(epochs=100, tolerance=1e-9))
        assert result.objective < float(evaluate()) * 1.02


def test_senseless_settings_are_refused() -> None:
    for change in ({"epochs": -1}, {"adam_share": 2.0}, {"tolerance": 0.0}, {"learning_rate": -1.0}):
        with pytest.raises(ValueError, match=r"epochs|adam_share|learning_rate"):
            FitSettings(**({"epochs": 3} | change))


def test_adam_in_bfloat16_is_coarse_and_what_comes_after_it_is_not(make_world: MakeWorld) -> None:
    world = make_world(dtype=torch.float32)
    start, _ = world.objective.value_and_gradient(world.params, world.batches())
    adam = FitSettings(epochs=9, adam_share=1.0, keep_checkpoints=8)
    exact, coarse = (run(world, dataclasses.replace(adam, adam_precision=p)) for p in ("float32", "bfloat16"))
    for one, other in zip(exact.checkpoints, coarse.checkpoints, strict=True):
        gap = (flatten(one) - flatten(other)).norm() / (flatten(one) - flatten(world.params)).norm()
        assert 1e-4 < float(gap) < 0.1
    assert coarse.objective < start
    assert coarse.objective == pytest.approx(exact.objective, rel=0.01)
    assert flatten(coarse.params).dtype == torch.float32
    # The value and the gradient that are told are those of the objective itself.
    value, gradient = world.objective.value_and_gradient(coarse.params, world.batches())
    assert coarse.objective == pytest.approx(value, rel=1e-6)
    assert coarse.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-4)
    both = run(world, FitSettings(epochs=200, adam_share=0.2, adam_precision="bfloat16"))
    assert both.stationary


def test_only_the_model_is_rounded(make_world: MakeWorld) -> None:
    world = make_world(dtype=torch.float32, scale=100.0)
    batch = world.batches()[0]
    rounded = in_bfloat16(world.objective.embed)
    text, image = rounded(world.params, batch.images, batch.texts)
    assert text.dtype == torch.bfloat16
    S = dataclasses.replace(world.objective, embed=rounded, mask_duplicates=False).similarity(world.params, batch)
    text, image = text.double(), image.double()
    truth = 100 * (text / text.norm(dim=1, keepdim=True)) @ (image / image.norm(dim=1, keepdim=True)).mT
    torch.testing.assert_close(S, truth.float(), rtol=0, atol=1e-4)  # in bfloat16 it would be off by 0.2
