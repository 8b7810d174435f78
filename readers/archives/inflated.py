"""A deflated member of a zip as a stream that believes nothing it was told."""

import io
import zlib
from typing import TYPE_CHECKING

from readers.archives.byte_range import ByteRange, Spent
from readers.limits import Limits
from readers.refusals import MemberDamaged, UploadRefused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PACKED_CHUNK = 64 * 1024


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
