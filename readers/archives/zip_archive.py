"""A zip whose entries are stored or deflated."""

import stat
import struct
from array import array
from pathlib import Path
from typing import IO, final

import numpy as np

from readers.archives.archive import Archive
from readers.archives.byte_range import ByteRange, Extent
from readers.archives.members import MemberIndex, plain_name
from readers.archives.stored_member import StoredMember
from readers.archives.zip_directory import ZipEntry, find_directory, walk
from readers.limits import Limits
from readers.refusals import MemberDamaged, UploadRefused

_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 99: "AES"}
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000


@final
class ZipArchive(Archive):
    """Keeps 29 bytes an entry beside its name; opens an entry through its local header."""

    def __init__(self, file: IO[bytes], limits: Limits, scratch: Path) -> None:
        super().__init__(MemberIndex(limits), limits, scratch)
        self._file = file
        self._offsets, self._packed, self._sizes = array("Q"), array("Q"), array("Q")
        self._crcs, self._methods = array("I"), bytearray()
        file_size = file.seek(0, 2)
        directory = find_directory(file, file_size)
        self._data_end = directory.start
        spans = array("Q"), array("Q")
        total = 0
        for count, entry in enumerate(walk(file, directory), start=1):
            if count > limits.max_members:
                raise UploadRefused("too_many_members", f"the archive has more than {limits.max_members} members")
            _check(entry)
            total += entry.size
            spans[0].append(entry.offset)
            spans[1].append(entry.offset + _LOCAL.size + entry.packed)
            self._add(entry)
        if total > limits.max_total_bytes:
            raise UploadRefused("too_large", f"the archive unpacks to {total} bytes")
        self._check_spans(*spans)

    def size(self, position: int) -> int:
        return self._sizes[position]

    def locate(self, position: int) -> StoredMember:
        return StoredMember(
            self.members.name(position),
            self._start(position),
            self._packed[position],
            self._sizes[position],
            self._crcs[position],
            self._methods[position] == _DEFLATED,
        )

    def file_of(self, position: int) -> IO[bytes]:
        return self._file

    def extent(self, position: int, scratch: IO[bytes] | None = None) -> Extent:
        if self._methods[position] != _STORED:
            return self._unpacked(position, scratch)
        return Extent(self._file, self._start(position), self._sizes[position])

    def _add(self, entry: ZipEntry) -> None:
        name = plain_name(entry.name)
        if name is None:
            return
        self.members.append(name)
        self._offsets.append(entry.offset)
        self._packed.append(entry.packed)
        self._sizes.append(entry.size)
        self._crcs.append(entry.crc)
        self._methods.append(entry.method)

    def _start(self, position: int) -> int:
        """Where an entry's data begin, behind its local header."""
        offset, name = self._offsets[position], self.members.name(position)
        head = ByteRange(self._file, offset, _LOCAL.size).read(_LOCAL.size) or b""
        magic, *_, name_length, extra_length = _LOCAL.unpack(head)
        start: int = offset + _LOCAL.size + name_length + extra_length
        if magic != b"PK\3\4" or start + self._packed[position] > self._data_end:
            raise MemberDamaged(f"{name} is not where the archive says")
        return start

    def _check_spans(self, starts: "array[int]", ends: "array[int]") -> None:
        """No two entries may share bytes: that is how a small zip claims to hold petabytes."""
        begin, end = np.array(starts, np.uint64), np.array(ends, np.uint64)
        order = np.argsort(begin, kind="stable")
        begin, end = begin[order], end[order]
        if (end[:-1] > begin[1:]).any() or (end > np.uint64(self._data_end)).any():
            raise UploadRefused("unreadable_archive", "unreadable archive: its entries overlap")


def _check(entry: ZipEntry) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadRefused("unsafe_member", f"{entry.name} is a link or a device; only files are read")
    if entry.flags & _ENCRYPTED_FLAGS:
        raise UploadRefused("encrypted_archive", f"{entry.name} is encrypted")
    if entry.method not in (_STORED, _DEFLATED):
        method = _METHODS.get(entry.method, str(entry.method))
        raise UploadRefused(
            "unsupported_compression", f"{entry.name} is compressed with {method}; use deflate or store it"
        )
    if entry.method == _STORED and entry.size != entry.packed:
        raise UploadRefused("unreadable_archive", f"unreadable archive: {entry.name} has two sizes")
