"""Measuring: the machine that a figure belongs to, times of jobs taken in turn, and resident memory."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import torch


def machine_facts() -> dict[str, Any]:
    """What a figure was measured on: date, cores, threads, versions, and the load at the start, as timings on a busy
    machine are noisy. Nothing names the machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


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


_RESET_PEAK = "5"  # to /proc/self/clear_refs, see proc(5)


def reset_peak() -> None:
    """From here on `peak_mib` is of what comes."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_mib() -> float:
    """The most memory that was resident in this process since `reset_peak`."""
    return _own_mib("VmHWM")


def at_rest_mib() -> float:
    """What is resident in this process now."""
    return _own_mib("VmRSS")


def _own_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {field}")


_EVERY_SECONDS = 0.05


class Resident:
    """Looks at the processes below `pid`; which of them is largest, and when."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def peak(self, begin: float, end: float) -> float:
        """The most that one process had between two times of the clock, MiB; of a moment, what was seen next to it."""
        near = [mib for at, mib in self._seen if begin - 2 * _EVERY_SECONDS <= at <= end + 2 * _EVERY_SECONDS]
        return max(near, default=0.0)

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self._seen.append((time.time(), max((_mib(pid) for pid in _below(self._pid)), default=0.0)))


def _below(pid: int) -> list[int]:
    """The processes that it started, and those that they started. One that ends meanwhile is left out."""
    below: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            below += [child, *_below(child)]
    return below


def _mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0.0)
