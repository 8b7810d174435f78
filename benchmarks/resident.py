"""The resident memory of a process and of all that it started, looked at again and again while a block lasts."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

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
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_below(child)]
    return found


def _mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0.0)
