"""What a job costs, as ratios to a plain embedding pass over the same data in the same run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

import torch
from torch import Tensor

from benchmarks.digit_worlds import digits, smallest
from benchmarks.measuring import interleaved, ratio, seconds
from benchmarks.sections import Json, Say, Size
from benchmarks.traceback_cost import traceback_against_refit
from benchmarks.worlds import Pairs, World, world_of
from ecif import (
    GaussNewton,
    choose_damping,
    pair_gradients,
    probe_rhs,
    probed_self_influence,
    score_batch,
)
from ecif.curvature.choice import PROBES
from ecif.parameters import Params
from ecif.parameters import size as count_of
from encoders import Embedder, LoadedModel, ModelSpec, load_model
from encoders.architectures import TINY_NAME

_LARGE: Final = "ViT-B-32"
_PROBES = PROBES["probes"]  # of a job with scope `heads` and more than 4,096 weights
_DIAGONAL_PROBES = PROBES["diagonal"]  # and of one with scope `all`
_TOLERANCE = 1e-3
_ENCODED_AT_ONCE = 64  # worker/analysis/features.py


def run(size: Size, say: Say) -> Json:
    """Scoring with every weight trained, a whole job with heads, a traceback from a store."""
    full = size == "full"
    results: Json = {}
    small = load_model(ModelSpec(TINY_NAME if full else smallest(), None, 0))
    pairs = digits(small, 0, 1024 if full else 64, 32, 0.05)
    results["all_tiny"] = scoring_all(
        small, pairs, 128 if full else 32, part=32 if full else 8, repeats=5 if full else 2
    )
    say(_ratio_line("scope all, tiny", results["all_tiny"]))
    large = load_model(ModelSpec(_LARGE if full else smallest(), None, 0))
    pairs = random_pairs(large, 8, 0)
    results["all_large"] = scoring_all(large, pairs, 8, part=0, repeats=3 if full else 1)
    say(_ratio_line("scope all, ViT-B/32", results["all_large"]))
    results["heads"] = heads_job(large, 1024 if full else 16, 64 if full else 8, 128 if full else 8)
    say(_ratio_line("heads job, ViT-B/32", results["heads"]))
    results["traceback"] = traceback_against_refit(8192 if full else 64, 128 if full else 8, 100 if full else 5, full)
    say(f"traceback of {results['traceback']['queries']} queries against a refit: {results['traceback']['ratio']:.3f}")
    return results


def random_pairs(model: LoadedModel, n: int, held_out: int) -> Pairs:
    """Noise for pictures and n different captions: the cost does not depend on what they show."""
    g = torch.Generator().manual_seed(0)
    total = n + held_out
    pixels = torch.randint(0, 256, (total, 3, *model.image_size), dtype=torch.uint8, generator=g)
    tokens = model.tokenize([f"{number} pictures" for number in range(total)]).ids
    return Pairs(pixels, tokens, torch.arange(total), n)


def scoring_all(model: LoadedModel, pairs: Pairs, batch_size: int, *, part: int, repeats: int) -> Json:
    """A scoring pass through every weight along one direction, against plain embedding.

    part: so many pairs are scored by explicit per-pair gradients too, and all along as many directions as a job has; 0
    for neither: nine directions of a ViT-B/32 took 16 GB.
    """
    whole = model.full()
    world = world_of(pairs, whole, whole.parameters, scale=1 / whole.temperature, l2=0.3, batch_size=batch_size, seed=0)
    g = torch.Generator().manual_seed(1)
    directions = 1e-3 * torch.randn(1 + _DIAGONAL_PROBES if part else 1, count_of(world.start), generator=g)
    jobs: dict[str, Callable[[], None]] = {
        "embedding": lambda: _embed(world, world.start),
        "scoring": lambda: _score(world, world.start, directions[:1]),
    }
    if part:
        jobs["scoring_job"] = lambda: _score(world, world.start, directions)
    taken = interleaved(jobs, repeats, warm_up=bool(part))
    results = {
        "parameters": count_of(world.start),
        "pairs": world.n,
        "batch_size": batch_size,
        "seconds": taken,
        "ratio": ratio(taken, "scoring", "embedding"),
    }
    if not part:
        return results
    several = {"directions_of_a_job": len(directions), "ratio_job": ratio(taken, "scoring_job", "embedding")}
    return {**results, **several, **_explicit(world, directions[:1], part)}


def _explicit(world: World, directions: Tensor, part: int) -> Json:
    """Per-pair gradients of the first pairs of the first batch, as a batch of their own."""
    chosen = torch.zeros(world.n, dtype=torch.bool)
    chosen[world.train[0].image_group[:part]] = True
    small = world.without(~chosen)
    (few,) = small.train
    scores: dict[str, Tensor] = {}

    def explicit() -> None:
        scores["explicit"] = pair_gradients(world.objective, world.start, few) @ directions[0]

    def pushed() -> None:
        scores["pushed"] = score_batch(world.objective, world.start, few, directions).total[0]

    taken = interleaved({"embedding": lambda: _embed(small, world.start), "explicit": explicit, "pushed": pushed}, 3)
    gap = float((scores["explicit"] - scores["pushed"]).norm() / scores["explicit"].norm())
    return {
        "part": part,
        "part_seconds": taken,
        "ratio_explicit": ratio(taken, "explicit", "embedding"),
        "scores_differ_by": gap,
    }


def heads_job(model: LoadedModel, n: int, held_out: int, batch_size: int) -> Json:
    """Encode once, then curvature, both roles and self-influence as a job does them; and the plain embedding pass.

    Both passes through the towers are timed in turn, batch by batch: on a busy machine whole passes would not compare.
    """
    pairs = random_pairs(model, n, held_out)
    whole = model.full()
    parts = {"embedding": 0.0, "encode": 0.0}
    features: list[tuple[Tensor, Tensor]] = []
    for some in torch.split(torch.arange(len(pairs.texts)), min(batch_size, _ENCODED_AT_ONCE)):
        images, texts = pairs.images[some], pairs.texts[some]
        parts["embedding"] += seconds(partial(_embed_plainly, whole, images, texts))
        parts["encode"] += seconds(partial(_encode, model, images, texts, features))
    clock = _Clock(parts)
    heads = model.heads()
    cached = Pairs(
        torch.cat([image for image, _ in features]), torch.cat([text for _, text in features]), pairs.captions, pairs.n
    )
    scale = 1 / heads.temperature
    world = world_of(cached, heads, heads.parameters, scale=scale, l2=0.3, batch_size=batch_size, seed=0)
    damping = choose_damping("auto", world.objective, world.start, world.batches).value
    gradient = world.validate(world.start)[1]
    clock.stop("damping and validation gradient")
    probes = probe_rhs(world.objective, world.start, world.batches, _PROBES, 0, damping)
    matrix = GaussNewton(
        world.objective, world.start, world.batches, damping=damping, tolerance=_TOLERANCE, max_iterations=500
    )
    solution = matrix.solve(torch.cat([gradient[None], probes]))
    clock.stop("curvature")
    _score(world, world.start, solution.x.float())
    clock.stop("scores")
    embedding = parts.pop("embedding")
    return {
        "parameters": count_of(world.start),
        "pairs": n,
        "held_out": held_out,
        "batch_size": batch_size,
        "probes": _PROBES,
        "iterations": solution.iterations,
        "converged": solution.converged,
        "damping": damping,
        "embedding": embedding,
        "parts": parts,
        "ratio": sum(parts.values()) / embedding,
    }


class _Clock:
    def __init__(self, parts: dict[str, float]) -> None:
        self._parts, self._last = parts, perf_counter()

    def stop(self, name: str) -> None:
        now = perf_counter()
        self._parts[name], self._last = now - self._last, now


@torch.no_grad()
def _embed_plainly(whole: Embedder, images: Tensor, texts: Tensor) -> None:
    whole(whole.parameters, images, texts)


def _encode(model: LoadedModel, images: Tensor, texts: Tensor, into: list[tuple[Tensor, Tensor]]) -> None:
    into.append(model.tower_features(images, texts))


@torch.no_grad()
def _embed(world: World, params: Params) -> None:
    for batch in world.train:
        world.objective.embed(params, batch.images, batch.texts)


def _score(world: World, params: Params, directions: Tensor) -> None:
    for batch in world.train:
        scores = score_batch(world.objective, params, batch, directions)
        if len(directions) > 1:
            probed_self_influence(scores)


def _ratio_line(name: str, results: Json) -> str:
    return f"{name}: {results['ratio']:.2f} times a plain embedding pass"
