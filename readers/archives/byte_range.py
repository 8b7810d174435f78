"""A part of a file as a stream of its own, however many others read the same file."""

import io
import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from readers.limits import Limits
from readers.refusals import MemberDamaged, UploadRefused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Spent:
    """Bytes read out of one upload so far, uncompressed."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_total_bytes
        self._spent = 0

    def add(self, count: int) -> None:
        self._spent += count
        if self._spent > self._most:
            raise UploadRefused("too_large", f"the upload holds more than {self._most} bytes")


@dataclass(frozen=True, slots=True)
class Extent:
    """Where bytes lie in an open file. A `temporary` file is closed with it."""

    file: IO[bytes]
    start: int
    length: int
    temporary: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.temporary:
            self.file.close()


class ByteRange(io.RawIOBase):
    """`length` bytes of `file` from `start`. Reads by position, so ranges of one file never disturb each other."""

    def __init__(self, file: IO[bytes], start: int, length: int, spent: Spent | None = None) -> None:
        self._file, self._start, self._length, self._spent = file, start, length, spent
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill `buffer`, short only at the end of the range."""
        with memoryview(buffer).cast("B") as view:
            wanted = min(len(view), max(0, self._length - self._at))
            done = 0
            while done < wanted:
                got = os.preadv(self._file.fileno(), [view[done:wanted]], self._start + self._at)
                if not got:
                    raise MemberDamaged("it ends too early")
                done += got
                self._at += got
        if self._spent:
            self._spent.add(done)
        return done
