"""The open streams of this process: how many each tenant has, and whether it is time to end them."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from store.errors import LimitError

_LOOK_AGAIN_SECONDS = 10


class Streams:
    """Counts streams. A server that is asked to end waits for its answers, and these would go on: so `closing` is set
    by the same signal."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self.closing = threading.Event()

    @contextmanager
    def one_more(self, tenant: str) -> Iterator[None]:
        """Count one while the block lasts.

        Raises:
            LimitError: the tenant has too many.
        """
        with self._lock:
            if self._open[tenant] >= self._most:
                raise LimitError(
                    "too_many_streams", f"{self._most} streams are open already: poll instead", _LOOK_AGAIN_SECONDS
                )
            self._open[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[tenant] -= 1

    @property
    def count(self) -> int:
        """How many are open."""
        with self._lock:
            return self._open.total()

    @contextmanager
    def told_by_signals(self) -> Iterator[None]:
        """Set `closing` when the process is asked to end, before whoever listened until now is told."""
        if threading.current_thread() is not threading.main_thread():
            yield  # no signals here: whoever runs this server ends its answers
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def told(number: int, frame: FrameType | None) -> None:
            self.closing.set()
            earlier = before[signal.Signals(number)]
            if callable(earlier):
                earlier(number, frame)

        for number in before:
            signal.signal(number, told)
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is told:
                    signal.signal(number, handler)
