"""A tar, already uncompressed, or a set of them that is read as one."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from readers.archives.archive import Archive
from readers.archives.byte_range import Extent
from readers.archives.members import MemberIndex, plain_name
from readers.archives.stored_member import StoredMember
from readers.archives.tar_members import walk
from readers.limits import Limits
from readers.refusals import UploadRefused


@dataclass(frozen=True, slots=True)
class Tar:
    """One tar and its name; the only one of an upload has none."""

    name: str
    extent: Extent


@final
class TarArchive(Archive):
    """Keeps 16 bytes a member beside its name; every member can be read at random. The limits hold over all tars.

    A set's tar that is cut short gives what came before the cut, and its name in `damaged`.
    """

    def __init__(self, tars: Sequence[Tar], limits: Limits, scratch: Path) -> None:
        super().__init__(MemberIndex(limits), limits, scratch)
        self._tars = tars
        self._starts, self._sizes, self._firsts = array("Q"), array("Q"), array("Q")
        self._seen = 0
        for tar in tars:
            self._firsts.append(len(self.members))
            try:
                self._index(tar.extent)
            except UploadRefused as refused:
                if not tar.name:
                    raise
                message = f"{tar.name}: {refused.message}"
                if refused.code != "unreadable_archive":
                    raise UploadRefused(refused.code, message, refused.param) from refused
                self.damaged[tar.name] = message

    @property
    def shards(self) -> list[tuple[str, range]]:
        ends = [*self._firsts[1:], len(self.members)]
        return [(tar.name, range(*bounds)) for tar, *bounds in zip(self._tars, self._firsts, ends, strict=True)]

    def size(self, position: int) -> int:
        return self._sizes[position]

    def locate(self, position: int) -> StoredMember:
        size = self._sizes[position]
        return StoredMember(self.members.name(position), self._starts[position], size, size)

    def extent(self, position: int, scratch: IO[bytes] | None = None) -> Extent:
        return Extent(self.file_of(position), self._starts[position], self._sizes[position])

    def _index(self, extent: Extent) -> None:
        most = self.limits.max_members
        for member in walk(extent.file, extent.start, extent.length):
            self._seen += 1
            if self._seen > most:
                raise UploadRefused("too_many_members", f"the archive has more than {most} members")
            name = plain_name(member.name) if member else None
            if member is None or name is None:
                continue
            self.members.append(name)
            self._starts.append(member.start)
            self._sizes.append(member.size)

    def file_of(self, position: int) -> IO[bytes]:
        return self._tars[bisect_right(self._firsts, position) - 1].extent.file
