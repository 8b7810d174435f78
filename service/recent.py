"""What was read a moment ago, for those who ask again."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """What `read` returns, read anew once it is older than `seconds`. Of many who ask at once one reads, and the others
    wait for it. What `read` raises is raised to the one who read, and not kept."""

    def __init__(self, read: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._seconds, self._clock = read, seconds, clock
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._last is None or self._clock() - self._last[0] > self._seconds:
                value = self._read()
                # By the time of its end: where reading takes longer than it is good for, those who wait share it.
                self._last = (self._clock(), value)
            return self._last[1]
