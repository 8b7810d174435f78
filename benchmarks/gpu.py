"""On a CUDA device: pairs per second, the share of what the device can do, memory. Elsewhere it says that it is not."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_heads
from benchmarks.cost import random_pairs
from benchmarks.digit_worlds import smallest
from benchmarks.measuring import interleaved
from benchmarks.sections import Json, Say, Size
from benchmarks.worlds import World, world_of
from ecif import score_batch
from ecif.parameters import size as count_of
from encoders import ModelSpec, load_model

_LARGE = "ViT-B-32"


def run(size: Size, say: Say) -> Json:
    """Every weight of a ViT-B/32 in float32, as jobs compute: plain embedding, and scoring along one direction. And two
    heads on cached features, along the directions of a job."""
    if size == "toy":  # the same lines, on a device that everybody has
        heads = gpu_heads.measure("cpu", width=8, pairs=40, batch_size=16, side=64, repeats=1)
        return measure("cpu", smallest(), 8, 8, 1) | {"heads": heads}
    if not torch.cuda.is_available():
        say("not measured: no CUDA device")
        return {"not_measured": "no CUDA device"}
    with gpu_heads.float32_as("ieee"):
        results = measure("cuda", _LARGE, 4096, 256, 3)
    heads = gpu_heads.measure("cuda", width=512, pairs=100_000, batch_size=128, side=8192, repeats=3)
    say(
        f"embedding {results['pairs_per_second']['embedding']:.0f} pairs/s, "
        f"scoring {results['pairs_per_second']['scoring']:.0f} pairs/s"
    )
    for name, one in heads["passes"].items():
        say(f"heads, {name}: {one['teraflops']:.1f} TFLOP/s, {one['share']['float32']:.0%} of a product of float32")
    return results | {"heads": heads}


def measure(device: str, architecture: str | Json, n: int, batch_size: int, repeats: int) -> Json:
    """Peak: what a large product of float32 matrices reaches on the same device in the same run."""
    model = load_model(ModelSpec(architecture, None, 0), device)
    whole = model.full()
    pairs = random_pairs(model, n, 0)
    world = world_of(pairs, whole, whole.parameters, scale=1 / whole.temperature, l2=0.3, batch_size=batch_size, seed=0)
    direction = 1e-3 * torch.randn(1, count_of(world.start), generator=torch.Generator().manual_seed(1)).to(device)
    jobs: dict[str, Callable[[], None]] = {
        "embedding": lambda: _embed(world, device),
        "scoring": lambda: _score(world, device, direction),
    }
    side = 8192 if device == "cuda" else 256
    matrix = torch.randn(side, side, device=device)
    taken = interleaved({**jobs, "product": lambda: matrix @ matrix}, repeats)
    peak = 2 * side**3 / median(taken["product"])
    results: Json = {
        "parameters": count_of(world.start),
        "pairs": n,
        "batch_size": batch_size,
        "seconds": taken,
        "ratio": median(taken["scoring"]) / median(taken["embedding"]),
        "peak_teraflops": peak / 1e12,
        "pairs_per_second": {name: n / median(taken[name]) for name in jobs},
        "share_of_peak": {},
        "memory_mib": {},
    }
    for name, job in jobs.items():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with FlopCounterMode(display=False) as counter:
            job()
        results["share_of_peak"][name] = counter.get_total_flops() / median(taken[name]) / peak
        if device == "cuda":
            results["memory_mib"][name] = torch.cuda.max_memory_allocated() / 2**20
    return results


@torch.no_grad()
def _embed(world: World, device: str) -> None:
    for batch in world.train:
        there = batch.to(device)
        world.objective.embed(world.start, there.images, there.texts)


def _score(world: World, device: str, direction: torch.Tensor) -> None:
    for batch in world.train:
        score_batch(world.objective, world.start, batch.to(device), direction)
