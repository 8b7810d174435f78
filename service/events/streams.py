"""The open streams of this process: how many each tenant has, and whether it is time to end them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from service.limits import AtOnce

_LOOK_AGAIN_SECONDS = 10


class Streams(AtOnce):
    """Counts streams. A server that is asked to end waits for its answers, and these would go on: so `closing` is set
    by the same signal."""

    def __init__(self, most: int) -> None:
        super().__init__(
            most, "too_many_streams", f"{most} streams are open already: poll instead", _LOOK_AGAIN_SECONDS
        )
        self.closing = threading.Event()

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
