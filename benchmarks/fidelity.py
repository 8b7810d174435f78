"""Do predictions come true? Linear datamodelling scores, slopes and edits against real refits (`docs/design.md`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

import torch
from torch import Tensor

from benchmarks.digit_worlds import heads_on_digits, lora_on_digits, toy_heads, whole_on_digits
from benchmarks.removals import FORMS, Oracle, predicted_changes, removal_gradients, twentieths
from benchmarks.sections import Json, Say, Size
from benchmarks.worlds import World, synthetic
from benchmarks.written_out import block_diagonal, gauss_newton_matrix
from ecif import (
    Curvature,
    Dense,
    Ekfac,
    FitSettings,
    GaussNewton,
    Hessian,
    Identity,
    Projected,
    Projection,
    choose_damping,
    fit,
    project_batch,
    unflatten,
)
from ecif.curvature.base import Matrix
from ecif.curvature.choice import EFFORT
from ecif.curvature.projection import SIZE as PROJECTION_SIZE
from ecif.datamodelling import datamodelling_score
from ecif.parameters import Params, flatten
from ecif.parameters import size as count_of

_LARGEST_CONDITION = EFFORT["all"].largest_condition  # what a job with scope `all` keeps it under
_DRAWS = 32
_PASSES = 4


@dataclass(frozen=True)
class Setting:
    """A kind of world. stationary: refits start from a minimum; else the proximal Bregman objective stands for them."""

    name: str
    title: str
    world: Callable[[int], World]
    toy: Callable[[int], World]
    stationary: bool


SETTINGS: Final = (
    Setting(
        "synthetic",
        "heads, synthetic (two 4 × 4 heads, 256 pairs, 20 % wrong)",
        synthetic,
        lambda seed: synthetic(seed, n=64),
        stationary=True,
    ),
    Setting(
        "digits_heads",
        "heads, digits (cached features of a trained `tiny` CLIP, 1,024 pairs, 5 % wrong)",
        heads_on_digits,
        toy_heads,
        stationary=True,
    ),
    Setting(
        "digits_all",
        "all, digits (every weight of a smaller CLIP, 256 pairs, 5 % wrong)",
        whole_on_digits,
        lambda seed: whole_on_digits(seed, n=32, epochs=5, l2=100.0, width=4),
        stationary=False,
    ),
    Setting(
        "digits_lora",
        "lora, digits (adapters of rank 2 on every linear map of that CLIP, 256 pairs, 5 % wrong)",
        lora_on_digits,
        lambda seed: lora_on_digits(seed, n=32, epochs=5, l2=100.0, width=4),
        stationary=False,
    ),
)


@dataclass(frozen=True)
class _Plan:
    """subsets: refits of each world. edits: how many of them are compared with edited models. resamples: of the
    bootstrap that the set form's intervals come from."""

    subsets: int
    edits: int
    resamples: int


def run(size: Size, say: Say) -> Json:
    """Every setting for every seed."""
    seeds, plan = ((0, 1, 2), _Plan(100, 20, 2000)) if size == "full" else ((0,), _Plan(8, 2, 20))
    settings = []
    for setting in SETTINGS:
        per_seed = []
        for seed in seeds:
            per_seed.append(_measure(setting, setting.world if size == "full" else setting.toy, seed, plan))
            best = {row["curvature"]: row["spearman"] for row in per_seed[-1]["scores"] if row["form"] == "set"}
            say(f"{setting.name}, seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in best.items()))
        settings.append(
            {"name": setting.name, "title": setting.title, "stationary": setting.stationary, "seeds": per_seed}
        )
    return {**vars(plan), "share": 0.05, "draws": _DRAWS, "passes": _PASSES, "settings": settings}


def _measure(setting: Setting, make: Callable[[int], World], seed: int, plan: _Plan) -> Json:
    world = make(seed)
    oracle, curvatures, damping = (_at_minimum if setting.stationary else _at_no_minimum)(world)
    leaving = twentieths(world, plan.subsets, seed)
    refits, stationary = oracle.refit(leaving)
    leaving, refits = leaving[stationary], refits[stationary]
    actual = oracle.changes(refits)
    base, gradient = world.validate(oracle.params)
    edits = min(plan.edits, len(leaving))
    removals = removal_gradients(world, oracle.params, leaving[:edits])
    scores, removed, shown = [], [], {}
    for name, curvature in curvatures.items():
        solved = curvature.solve(torch.cat([gradient[None], removals])).x
        predicted = predicted_changes(world, oracle.params, solved[0], leaving)
        shown[name] = predicted["set"].tolist()
        for form in FORMS:
            score = datamodelling_score(predicted[form], actual, resamples=plan.resamples if form == "set" else 2)
            interval = {"low": score.low, "high": score.high} if form == "set" else {}
            scores.append(
                {"curvature": name, "form": form, "spearman": score.spearman, "slope": score.slope, **interval}
            )
        removed.append({"curvature": name, **_gap(oracle, solved[1:], refits[:edits], actual[:edits])})
    return {
        "seed": seed,
        "pairs": world.n,
        "parameters": count_of(world.start),
        "scale": world.objective.scale,
        "l2": world.objective.l2,
        "damping": damping,
        "validation_loss": base,
        "change": float(actual.std()),
        "not_stationary": int((~stationary).sum()),
        "scores": scores,
        "removal": removed,
        "actual": actual.tolist(),
        "predicted": shown,
    }


def _at_minimum(world: World) -> tuple[Oracle, dict[str, Curvature], float]:
    fitted = fit(world.objective, world.start, world.batches, FitSettings(epochs=5000, tolerance=1e-8))
    if not fitted.stationary:
        raise RuntimeError(f"the fit is not stationary: decrement bound {fitted.decrement_bound:.1e}")
    given = (world.objective, fitted.params, world.batches)
    hessian = Dense.of(Hessian(*given))
    matrix = GaussNewton(*given, tolerance=1e-6, max_iterations=2000)
    curvatures = {
        "hessian": hessian,
        **_others(world, fitted.params, matrix, matrix.apply, 0.0),
        "identity": Identity(),
    }
    return (
        Oracle(world, fitted.params, False, world.objective.ridge(), torch.cholesky_inverse(hessian.factor)),
        curvatures,
        0.0,
    )


def _at_no_minimum(world: World) -> tuple[Oracle, dict[str, Curvature], float]:
    params = world.start
    chosen = choose_damping("auto", world.objective, params, world.batches, largest_condition=_LARGEST_CONDITION)
    ridge = world.objective.ridge(chosen.value)
    G = gauss_newton_matrix(world, params, ridge)
    dense = Dense(G, torch.linalg.cholesky(G))
    matrix = GaussNewton(world.objective, params, world.batches, damping=chosen.value)
    others = _others(world, params, matrix, lambda vectors: vectors @ G, chosen.value)
    curvatures = {**others, "gauss_newton": dense, "identity": Identity()}
    return Oracle(world, params, True, ridge, torch.cholesky_inverse(dense.factor)), curvatures, chosen.value


def _others(
    world: World, params: Params, matrix: Matrix, apply: Callable[[Tensor], Tensor], damping: float
) -> dict[str, Curvature]:
    given = (world.objective, params, world.batches)
    near = Ekfac.of(*given, damping=damping, draws=_DRAWS)
    few = GaussNewton(*given, damping=damping, max_iterations=_PASSES, preconditioner=near)
    # As many coordinates as a job keeps, but of the smallest model not all that there are.
    projection = Projection.of_size(params, 0, min(PROJECTION_SIZE, count_of(params) * 9 // 16))
    parts = (project_batch(world.objective, params, batch, projection).curvature for batch in world.train)
    return {
        "gauss_newton": matrix,
        "blocks": block_diagonal(apply, params),
        f"ekfac + {_PASSES} passes": few,
        "ekfac": near,
        "projected": Projected.finish(world.objective, projection, parts, damping),
    }


def _gap(oracle: Oracle, steps: Tensor, refits: Tensor, actual: Tensor) -> Json:
    """How far edited models are from refitted ones: medians over the subsets, as shares of what the refit changed."""
    start = flatten(oracle.params)
    edited = start + steps
    changes = oracle.changes(edited)
    return {
        "distance": median(((edited - refits).norm(dim=1) / (refits - start).norm(dim=1)).tolist()),
        "loss_gap": float((changes - actual).abs().median() / actual.abs().median()),
        "finite": all(bool(value.isfinite().all()) for value in unflatten(edited[0], oracle.params).values()),
    }
