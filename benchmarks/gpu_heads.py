"""Two linear heads on cached features: what share of a device's matrix products the passes of a job reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import interleaved, seconds
from benchmarks.sections import Json
from ecif import Batch, GaussNewton, Objective
from ecif.curvature.choice import PROBES
from ecif.embeddings import square_heads
from ecif.parameters import size as count_of
from ecif.scoring import score_batches

DIRECTIONS: Final = 1 + PROBES["probes"]
"""The validation gradient's and those of self-influence, as in a job with scope `heads`."""

_PRODUCTS: Final = 10  # timed together: one of bfloat16 takes a millisecond


@contextmanager
def float32_as(precision: str) -> Iterator[None]:
    """Products of float32 in "ieee" float32, as jobs compute, or in "tf32"."""
    backends: Any = torch.backends  # without types there
    before = backends.fp32_precision
    backends.fp32_precision = precision
    try:
        yield
    finally:
        backends.fp32_precision = before


def measure(device: str, *, width: int, pairs: int, batch_size: int, side: int, repeats: int) -> Json:
    """A gradient, scores and a Gauss-Newton product of all pairs, in float32; features lie on the device.

    side: of the square matrices whose product says what the device can do.
    """
    g = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(pairs, width, generator=g).to(device) for _ in range(2))
    places = torch.arange(pairs, device=device)  # no two captions or images alike
    batches = [
        Batch(images[at : at + batch_size], texts[at : at + batch_size], *(2 * [places[at : at + batch_size]]))
        for at in range(0, pairs, batch_size)
    ]
    eye = torch.eye(width, device=device)
    params = {"image.weight": eye, "text.weight": eye.clone()}
    objective = Objective(square_heads, 100.0, 0.3, params, pairs, linear=True)
    matrix = GaussNewton(objective, params, lambda: batches)
    directions = 1e-3 * torch.randn(DIRECTIONS, count_of(params), generator=g).to(device)

    def score() -> None:
        for _ in score_batches(objective, params, batches, directions):
            pass

    jobs: dict[str, Callable[[], object]] = {
        "gradient": lambda: objective.value_and_gradient(params, batches),
        "scoring": score,
        "product": lambda: matrix.apply(directions.double()),
    }
    rates = {name: _rate(device, side, name) for name in ("float32", "tf32", "bfloat16")}
    results: Json = {"width": width, "pairs": pairs, "batch_size": batch_size, "directions": DIRECTIONS}
    results |= {"rate_teraflops": {name: rate / 1e12 for name, rate in rates.items()}, "passes": {}}
    with float32_as("ieee"):
        taken = interleaved(jobs, repeats)
        for name, job in jobs.items():
            with FlopCounterMode(display=False) as counter:
                job()
            reached = counter.get_total_flops() / median(taken[name])
            results["passes"][name] = {
                "seconds": taken[name],
                "teraflops": reached / 1e12,
                "share": {of: reached / rate for of, rate in rates.items()},
            }
    return results


def _rate(device: str, side: int, name: str) -> float:
    """Operations per second of a large product: the median of five, each of several products."""
    with float32_as("tf32" if name == "tf32" else "ieee"):
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        matrix = torch.randn(side, side, device=device, dtype=dtype)

        def several() -> None:
            for _ in range(_PRODUCTS):
                matrix @ matrix

        several()
        return _PRODUCTS * 2 * side**3 / median(seconds(several) for _ in range(5))
