"""Times of several jobs, taken in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch


def interleaved(
    jobs: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of every job, `repeats` of each: all once, then all again, after one round that is not counted."""
    if warm_up:
        for job in jobs.values():
            job()
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            taken[name].append(seconds(job))
    return taken


def seconds(job: Callable[[], object]) -> float:
    """Of one run, the device's queue included."""
    _wait()
    start = perf_counter()
    job()
    _wait()
    return perf_counter() - start


def ratio(taken: dict[str, list[float]], of: str, to: str) -> float:
    """The median over the rounds of one job's time to another's in the same round."""
    return median(mine / its for mine, its in zip(taken[of], taken[to], strict=True))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
