"""A tar, already uncompressed."""

from array import array
from pathlib import Path
from typing import IO, cast, final

from worker.formats.archives import Archive
from worker.formats.byte_range import ByteRange, Extent, Spent
from worker.formats.limits import Limits
from worker.formats.member_index import MemberIndex, plain_name
from worker.formats.refusals import UploadRefused
from worker.formats.tar_members import walk


@final
class TarArchive(Archive):
    """Keeps 16 bytes a member beside its name; every member can be read at random."""

    def __init__(self, file: IO[bytes], limits: Limits, scratch: Path) -> None:
        super().__init__(MemberIndex(limits), limits, scratch)
        self._file, self._spent = file, Spent(limits)
        self._starts, self._sizes = array("Q"), array("Q")
        for count, member in enumerate(walk(file, file.seek(0, 2)), start=1):
            if count > limits.max_members:
                raise UploadRefused("too_many_members", f"the archive has more than {limits.max_members} members")
            name = plain_name(member.name) if member else None
            if member is None or name is None:
                continue
            self.members.append(name)
            self._starts.append(member.start)
            self._sizes.append(member.size)

    def size(self, position: int) -> int:
        return self._sizes[position]

    def open(self, position: int) -> IO[bytes]:
        part = ByteRange(self._file, self._starts[position], self._sizes[position], self._spent)
        return cast(IO[bytes], part)

    def extent(self, position: int) -> Extent:
        return Extent(self._file, self._starts[position], self._sizes[position])
