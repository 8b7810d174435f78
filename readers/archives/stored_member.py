"""A member of an archive by where its bytes lie in a file: all that is needed to read it without the archive."""

import zlib
from dataclasses import dataclass
from typing import IO, cast

from readers.archives.byte_range import ByteRange, Spent
from readers.archives.inflated import Inflated
from readers.limits import Limits
from readers.refusals import MemberDamaged, PairRefused, Rejection


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
