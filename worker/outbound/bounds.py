"""The bounds of a copy: how large it may be, how long it may take, and how slow it may be.

Who sends a byte now and then does not keep a worker.
"""

import hashlib
import time
from typing import IO

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


class BoundedCopy:
    """What is written goes to `file`.

    Attributes:
        size: bytes so far.
        pace: what bounds the time it takes.
    """

    def __init__(self, file: IO[bytes], most: int, pace: Pace) -> None:
        self._file, self._most, self._hasher = file, most, hashlib.sha256()
        self.pace = pace
        self._full = False
        self.size = 0

    def write(self, piece: bytes) -> int:
        """Take all of `piece`.

        Raises:
            InvalidError: it takes too long, or there would be more than `most` bytes. After the latter nothing is
                written any more, and nothing said: who writes an archive closes it.
        """
        if self._full:
            return len(piece)
        self.size += len(piece)
        self._full = self.size > self._most
        self.check(0)
        self.pace.check(self.size)
        self._hasher.update(piece)
        self._file.write(piece)
        return len(piece)

    def check(self, more: int) -> None:
        """Raises:
        InvalidError: there is no room for so many bytes more.
        """
        if self.size + more > self._most:
            raise InvalidError("too_large", f"there is room for {self._most:,} bytes, and the file is larger", "uri")

    def flush(self) -> None:
        """Of no use here; archives ask for it."""

    @property
    def digest(self) -> str:
        """ "sha256:…" of what was written."""
        return f"sha256:{self._hasher.hexdigest()}"


def empty() -> InvalidError:
    """For a file that was named and has nothing in it."""
    return InvalidError("empty_file", "the file is empty", "uri")
