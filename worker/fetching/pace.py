"""How long a fetch may take, and how slow it may be: who sends a byte now and then does not keep a worker."""

import time

from store.errors import InvalidError

_WINDOW_SECONDS = 60.0


class Pace:
    """The deadline of one fetch, from now on, and the least that must have come in every minute of it."""

    def __init__(self, seconds: float, least_bytes_per_second: int) -> None:
        self._seconds, self._least = seconds, least_bytes_per_second
        self._ends_at = time.monotonic() + seconds
        self._window: tuple[float, int] | None = None  # begins with the first bytes: listing a bucket takes its time

    def left(self) -> float:
        """Seconds until the deadline, more than none.

        Raises:
            InvalidError: it has passed.
        """
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise InvalidError("fetch_too_slow", f"it was not copied within {self._seconds:,.0f} seconds", "uri")
        return left

    def check(self, size: int) -> None:
        """Look at what has come so far, in bytes.

        Raises:
            InvalidError: the deadline has passed, or too little came in the last minute.
        """
        self.left()
        if self._window is None:
            self._window = (time.monotonic(), size)
        began, before = self._window
        seconds = time.monotonic() - began
        if seconds < _WINDOW_SECONDS:
            return
        if size - before < self._least * seconds:
            raise InvalidError(
                "fetch_too_slow",
                f"{size - before:,} bytes came in the last {seconds:,.0f} seconds: less than {self._least:,} a second",
                "uri",
            )
        self._window = (time.monotonic(), size)
