"""What each tenant may have under way at once in this process: open streams, and heavy requests."""

import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread

from store.errors import LimitError

_LOOK_AGAIN_SECONDS = 10
_THREADS = 16  # more than one tenant may have requests, so that it does not hold all of them

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class AtOnce:
    """Counts what each tenant has under way in this process. It protects the process, so it holds without keys too."""

    def __init__(self, most: int, code: str, message: str, retry_after: int) -> None:
        self._most = most
        self._refusal = (code, message, retry_after)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, tenant: str) -> Iterator[None]:
        """Count one while the block lasts.

        Raises:
            LimitError: the tenant has too many.
        """
        with self._lock:
            if self._open[tenant] >= self._most:
                raise LimitError(*self._refusal)
            self._open[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[tenant] -= 1

    @property
    def count(self) -> int:
        """How many are under way, of all tenants."""
        with self._lock:
            return self._open.total()


class Streams(AtOnce):
    """Counts streams. A server that is asked to end waits for its answers, and these would go on: so `closing` is set
    by the same signal."""

    def __init__(self, most: int) -> None:
        super().__init__(
            most, "too_many_streams", f"{most} streams are open already: poll instead", _LOOK_AGAIN_SECONDS
        )
        self.closing = threading.Event()

    @contextmanager
    def close_on_signals(self) -> Iterator[None]:
        """Set `closing` when the process is asked to end, before the handlers that were there until now are called."""
        if threading.current_thread() is not threading.main_thread():
            yield  # no signals here: whoever runs this server ends its answers
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def close(number: int, frame: FrameType | None) -> None:
            self.closing.set()
            earlier = before[signal.Signals(number)]
            if callable(earlier):
                earlier(number, frame)

        for number in before:
            signal.signal(number, close)
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is close:
                    signal.signal(number, handler)


class Heavy(AtOnce):
    """Requests that read whole jobs: exports, reports and checkpoints.

    They run on threads of their own, so those that every other request needs stay free. A client that reads slowly
    holds no thread: one is taken for each piece of the answer.
    """

    def __init__(self, most: int) -> None:
        super().__init__(
            most,
            "too_many_heavy_requests",
            f"{most} exports, reports or checkpoints are under way: wait for one",
            _LOOK_AGAIN_SECONDS,
        )
        self._threads = CapacityLimiter(_THREADS)

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call a function on one of the threads."""
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def each(self, pieces: Iterator[str] | Iterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces as bytes, each made when it is asked for."""

        def following() -> bytes | None:
            piece = next(pieces, None)
            return piece.encode() if isinstance(piece, str) else piece

        while (piece := await self.run(following)) is not None:
            yield piece
