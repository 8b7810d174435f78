"""Leaving pairs out: by an edit, and by training again without them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from benchmarks.digit_worlds import digits, heads_on_digits, smallest, toy_heads
from benchmarks.measuring import interleaved, ratio, seconds
from benchmarks.removals import removal_gradients, twentieths
from benchmarks.sections import Json, Say, Size
from benchmarks.worlds import World, synthetic, train_from_scratch, world_of
from ecif import (
    Curvature,
    Dense,
    FitSettings,
    GaussNewton,
    choose_damping,
    fit,
    random_subsets,
    score_batch,
    score_removals,
)
from ecif.parameters import Params
from ecif.parameters import size as count_of
from encoders import ModelSpec, load_model
from encoders.architectures import TINY_NAME

_EPOCHS = 15  # of the demo


def run(size: Size, say: Say) -> Json:
    """Heads on cached features, and every weight of a model trained from scratch."""
    full = size == "full"
    heads = heads_on_digits(0) if full else toy_heads(0)
    many = synthetic(0, n=8192, width=32, scale=20.0, batch_size=128) if full else toy_heads(0)
    results = {}
    for name, world, removed in (("heads", heads, heads.n // 20), ("many", many, 20 if full else 3)):
        results[name] = _heads(world.in_single(), removed, 5 if full else 1)
        say(f"heads, {world.n:,} pairs: an edit is {results[name]['ratio_on']:.0f} times as fast as a refit")
    results["all"] = _all(512 if full else 32, _EPOCHS if full else 1, full)
    say(f"every weight: a predicted removal is {results['all']['ratio_of_100']:.1f} times as fast as training again")
    return results


def _heads(world: World, removed: int, repeats: int) -> Json:
    """As jobs do it: float32, the tolerance of a job, the curvature of a small model factorised once."""
    settings = FitSettings(epochs=200)
    fitted = fit(world.objective, world.start, world.batches, settings)
    params = fitted.params
    prepared: list[Curvature] = []

    def prepare() -> None:
        prepared.append(Dense.of(GaussNewton(world.objective, params, world.batches)))

    preparing = seconds(prepare)
    curvature = prepared[0]
    subsets = random_subsets(world.n, removed / world.n, 100, seed=0)
    direction = curvature.solve(world.validate(params)[1][None]).x.float()
    epochs: dict[str, int] = {}

    def refit(name: str, start: Params) -> None:
        left = world.without(subsets[0])
        epochs[name] = fit(left.objective, start, left.batches, settings).epochs_done

    def predict() -> None:
        for batch in world.train:
            score_removals(world.objective, params, batch, direction, subsets[:, batch.image_group])

    def every_single_one() -> None:
        for batch in world.train:
            score_batch(world.objective, params, batch, direction)

    jobs: dict[str, Callable[[], object]] = {
        "edit": lambda: curvature.solve(removal_gradients(world, params, subsets[:1])),
        "predict_100": predict,
        "every_single_one": every_single_one,
        "refit": partial(refit, "refit", world.start),
        "refit_on": partial(refit, "refit_on", params),
    }
    taken = interleaved(jobs, repeats)
    return {
        "pairs": world.n,
        "parameters": count_of(world.start),
        "removed": int(subsets[0].sum()),
        "stationary": fitted.stationary,
        "epochs": epochs,
        "prepare": preparing,
        "seconds": taken,
        "ratio": ratio(taken, "refit", "edit"),
        "ratio_on": ratio(taken, "refit_on", "edit"),
        "ratio_of_100": 100 * median(taken["refit_on"]) / (preparing + 100 * median(taken["edit"])),
        "ratio_predicted": 100 * ratio(taken, "refit_on", "predict_100"),
        "ratio_every_single_one": world.n * ratio(taken, "refit_on", "every_single_one"),
    }


def _all(n: int, epochs: int, full: bool) -> Json:
    """A solve once, and a pass for 100 sets, against training from scratch for each."""
    model = load_model(ModelSpec(TINY_NAME if full else smallest(), None, 0))
    whole = model.full()
    pairs = digits(model, 0, n, n // 4, 0.05)
    scale = 1 / whole.temperature
    world = world_of(pairs, whole, whole.parameters, scale=scale, l2=0.3, batch_size=64, seed=0)
    params: list[Params] = []
    train = seconds(lambda: params.append(train_from_scratch(world, epochs)))
    subsets = twentieths(world, 100, 0)
    again = seconds(lambda: train_from_scratch(world.without(subsets[0]), epochs))
    given = (world.objective, params[0], world.batches)
    directions: list[torch.Tensor] = []
    passes: list[int] = []

    def solve() -> None:
        damping = choose_damping("auto", *given, largest_condition=300.0).value
        matrix = GaussNewton(*given, damping=damping, tolerance=1e-2, max_iterations=100)
        solution = matrix.solve(world.validate(params[0])[1][None])
        directions.append(solution.x.float())
        passes.append(solution.iterations)

    def predict() -> None:
        for batch in world.train:
            score_removals(world.objective, params[0], batch, directions[0], subsets[:, batch.image_group])

    solving, predicted = seconds(solve), seconds(predict)
    return {
        "pairs": n,
        "parameters": count_of(world.start),
        "epochs": epochs,
        "train": train,
        "train_again": again,
        "solve": solving,
        "passes": passes[0],
        "predict_100": predicted,
        "ratio_of_100": 100 * again / (solving + predicted),
    }
