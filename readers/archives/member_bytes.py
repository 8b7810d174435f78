"""The bytes of a member of an archive: a part of a file, as they are or deflated.

What an archive says of a member is believed only as far as its bytes bear it out; all that is read is counted.
"""

import io
import os
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self, cast

from readers.limits import Limits
from readers.refusals import MemberDamaged, PairRefused, Rejection, UploadRefused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PACKED_CHUNK = 64 * 1024


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


class Inflated(io.RawIOBase):
    """The `size` bytes that `packed` inflates to: no fewer, no more, with the checksum announced."""

    def __init__(self, packed: ByteRange, *, name: str, size: int, crc: int, limits: Limits, spent: Spent) -> None:
        self._packed, self._name, self._limits, self._spent = packed, name, limits, spent
        self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        self._left, self._crc_announced = size, crc
        self._crc = self._in = self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill `buffer`, short only at the end of the member."""
        done = 0
        with memoryview(buffer).cast("B") as view:
            wanted = min(len(view), self._left)
            while done < wanted:
                piece = self._next(wanted - done)
                view[done : done + len(piece)] = piece
                done += len(piece)
        if done:
            self._left -= done
            if not self._left:
                self._check_end()
        return done

    def _next(self, most: int) -> bytes:
        while True:
            data = self._zlib.unconsumed_tail or self._packed.read(_PACKED_CHUNK) or b""
            piece = self._decompress(data, most)
            self._in += len(data) - len(self._zlib.unconsumed_tail)
            if piece:
                self._account(piece)
                return piece
            if self._zlib.eof or not data:
                raise MemberDamaged(f"{self._name} ends too early")

    def _decompress(self, data: bytes, most: int) -> bytes:
        try:
            return self._zlib.decompress(data, most)
        except zlib.error as error:
            raise MemberDamaged(f"{self._name}: {error}") from error

    def _account(self, piece: bytes) -> None:
        self._out += len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        self._spent.add(len(piece))
        if self._out > self._limits.ratio_floor_bytes and self._out > self._limits.max_ratio * self._in:
            raise UploadRefused(
                "decompression_bomb",
                f"{self._name} unpacks to more than {self._limits.max_ratio} times its size",
            )

    def _check_end(self) -> None:
        if self._crc != self._crc_announced:
            raise MemberDamaged(f"{self._name} does not match its checksum")
        data = self._zlib.unconsumed_tail or self._packed.read(_PACKED_CHUNK) or b""
        if not self._zlib.eof and self._decompress(data, 1):
            raise MemberDamaged(f"{self._name} is longer than the archive says")


@dataclass(frozen=True, slots=True)
class StoredMember:
    """`packed` bytes from `start`, which are `size` bytes when read. `crc` is None where the archive keeps none."""

    name: str
    start: int
    packed: int
    size: int
    crc: int | None = None
    deflated: bool = False

    def open(self, file: IO[bytes], limits: Limits, spent: Spent) -> IO[bytes]:
        """From its first byte to its last; reading counts as spent."""
        packed = ByteRange(file, self.start, self.packed, None if self.deflated else spent)
        if not self.deflated:
            return cast(IO[bytes], packed)
        inflated = Inflated(packed, name=self.name, size=self.size, crc=self.crc or 0, limits=limits, spent=spent)
        return cast(IO[bytes], inflated)

    def read(self, file: IO[bytes], limits: Limits, spent: Spent) -> bytes:
        """All of it.

        Raises:
            PairRefused: it is damaged.
        """
        try:
            with self.open(file, limits, spent) as stream:
                content = stream.read(self.size)
        except MemberDamaged as error:
            raise PairRefused(str(error), Rejection.UNREADABLE_IMAGE) from error
        if not self.deflated and self.crc is not None and zlib.crc32(content) != self.crc:
            raise PairRefused(f"{self.name} does not match its checksum", Rejection.UNREADABLE_IMAGE)
        return content
