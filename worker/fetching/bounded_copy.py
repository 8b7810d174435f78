"""A copy on this machine's disk, hashed and bounded while it is written."""

import hashlib
from typing import IO

from store.errors import InvalidError
from worker.fetching.pace import Pace


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
