"""An archive whose members are read by position, whatever wrote it."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from readers.archives.member_bytes import Extent, Spent, StoredMember
from readers.archives.members import MemberIndex
from readers.limits import Limits
from readers.refusals import MemberDamaged, PairRefused, Rejection

_COPY_CHUNK = 1 << 20


class Archive(ABC):
    """A zip or a tar. Members are streamed or held one at a time; none is ever written under its name."""

    def __init__(self, members: MemberIndex, limits: Limits, scratch: Path) -> None:
        self.members = members
        self.limits = limits
        self.spent = Spent(limits)
        self.scratch = scratch
        self.damaged: dict[str, str] = {}
        """archives of a set that end too early: name and reason"""
        self.upload: IO[bytes] | None = None
        """the file that was uploaded; members of a compressed archive lie in another"""
        self.listing = False
        """whether `image` says where an image lies instead of reading it"""

    @abstractmethod
    def size(self, position: int) -> int:
        """Bytes of a member, uncompressed, as the archive announces them."""

    @abstractmethod
    def locate(self, position: int) -> StoredMember:
        """Where a member's bytes lie in `file_of` it.

        Raises:
            MemberDamaged: they are not where the archive says.
        """

    @abstractmethod
    def file_of(self, position: int) -> IO[bytes]:
        """The file in which a member's bytes lie."""

    def open(self, position: int) -> IO[bytes]:
        """A member from its first byte to its last; reading counts towards the limits."""
        return self.locate(position).open(self.file_of(position), self.limits, self.spent)

    @abstractmethod
    def extent(self, position: int, scratch: IO[bytes] | None = None) -> Extent:
        """Where a member's bytes lie plain. A compressed one is unpacked first: to the end of `scratch`, which stays
        open, or to a temporary file of its own.
        """

    def offset(self, position: int) -> int | None:
        """Where a member's bytes lie in the upload as they are; `None` where they do not."""
        member = self.locate(position)
        return member.start if not member.deflated and self.file_of(position) is self.upload else None

    @property
    def in_upload(self) -> bool:
        """Whether the bytes of all members lie in the upload, as they are or deflated."""
        return all(self.file_of(positions[0]) is self.upload for _, positions in self.shards if len(positions))

    @property
    def shards(self) -> list[tuple[str, range]]:
        """The positions of each archive of a set, with its name; most archives are the only one, without a name."""
        return [("", range(len(self.members)))]

    def read(self, position: int) -> bytes:
        """A whole member.

        Raises:
            PairRefused: it is larger than a member may be, or damaged.
        """
        return self._located(position).read(self.file_of(position), self.limits, self.spent)

    def image(self, position: int) -> bytes | StoredMember:
        """A whole member, or where it lies while the archive is only listed.

        Raises:
            PairRefused: as `read`; of one that is listed it may turn out later that it is damaged.
        """
        return self._located(position) if self.listing else self.read(position)

    def _located(self, position: int) -> StoredMember:
        size, most = self.size(position), self.limits.max_member_bytes
        if size > most:
            raise PairRefused(
                f"{self.members.name(position)} has {size} bytes; {most} is the most", Rejection.TOO_LARGE
            )
        try:
            return self.locate(position)
        except MemberDamaged as error:
            raise PairRefused(str(error), Rejection.UNREADABLE_IMAGE) from error

    def _unpacked(self, position: int, scratch: IO[bytes] | None) -> Extent:
        size = self.size(position)
        if scratch is None:
            return Extent(copied_to_scratch(self.open(position), self.scratch), 0, size, temporary=True)
        start = scratch.seek(0, 2)
        with self.open(position) as stream:
            shutil.copyfileobj(stream, scratch, _COPY_CHUNK)
        scratch.flush()
        return Extent(scratch, start, size)


def copied_to_scratch(stream: IO[bytes], scratch: Path) -> IO[bytes]:
    """A nameless temporary file in `scratch` with all of `stream`, which is closed."""
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  the caller closes it
    try:
        with stream:
            shutil.copyfileobj(stream, file, _COPY_CHUNK)
        file.flush()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
