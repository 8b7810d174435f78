"""A zip whose entries are stored or deflated, and its central directory entry by entry.

`zipfile` reads the whole directory into memory, at about a kilobyte an entry, before anything can be checked. This
walks it: APPNOTE.TXT sections 4.3.12 (entries), 4.3.14–16 (end records), 4.5.3 (zip64).
"""

import stat
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, final

import numpy as np

from readers.archives.archive import Archive
from readers.archives.member_bytes import ByteRange, Extent, StoredMember
from readers.archives.members import MemberIndex, plain_name
from readers.limits import Limits
from readers.refusals import MemberDamaged, UploadRefused

_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 99: "AES"}
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_LONGEST_COMMENT = 0xFFFF
_FULL32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry of the directory. `mode` is the file's Unix mode, 0 where another system wrote the archive."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies. `count` is the number of entries, modulo 65536 unless `wide`."""

    start: int
    size: int
    count: int
    wide: bool


def find_directory(file: IO[bytes], file_size: int) -> Directory:
    """Locate the central directory from the end of the file."""
    tail_start = max(0, file_size - _END.size - _LONGEST_COMMENT)
    tail = ByteRange(file, tail_start, file_size - tail_start).readall() or b""
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _damaged("it has no end record; it was probably cut short")
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    end, wide = tail_start + at, False
    locator_at = end - _LOCATOR64.size
    if locator_at >= 0:
        magic, _, end64, _ = _LOCATOR64.unpack(_exactly(file, locator_at, _LOCATOR64.size))
        if magic == b"PK\6\7":
            if end64 + _END64.size > locator_at:
                raise _damaged("its zip64 end record is out of place")
            magic, _, _, _, disk, _, _, count, size, start = _END64.unpack(_exactly(file, end64, _END64.size))
            if magic != b"PK\6\6":
                raise _damaged("its zip64 end record is missing")
            end, wide = end64, True
    if disk:
        raise _damaged("it is one part of several")
    if start + size > end:
        raise _damaged("its directory is out of place")
    return Directory(start, size, count, wide)


def walk(file: IO[bytes], directory: Directory) -> Iterator[ZipEntry]:
    """Every entry, in the directory's order."""
    stream = BufferedReader(ByteRange(file, directory.start, directory.size), 1 << 20)
    left, seen = directory.size, 0
    while left:
        head = stream.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
            raise _damaged(f"entry {seen} of its directory is broken")
        _, _, system, _, _, flags, method, _, _, crc, packed, size, *lengths, attributes, offset = _ENTRY.unpack(head)
        name_length, extra_length, comment_length, _, _ = lengths
        rest = name_length + extra_length + comment_length
        raw = stream.read(rest)
        if len(raw) < rest:
            raise _damaged(f"entry {seen} of its directory is broken")
        extra = raw[name_length : name_length + extra_length]
        size, packed, offset = _widened(extra, size, packed, offset)
        mode = attributes >> 16 if system == 3 else 0
        yield ZipEntry(_decoded(raw[:name_length], flags), flags, method, crc, packed, size, offset, mode)
        left -= _ENTRY.size + rest
        seen += 1
    if seen != directory.count and (directory.wide or seen % 0x10000 != directory.count):
        raise _damaged(f"its directory has {seen} entries and announces {directory.count}")


def _widened(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The zip64 extra field replaces, in this order, those numbers that are all ones."""
    if _FULL32 not in (size, packed, offset):
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            wide = list(struct.unpack_from(f"<{min(length, len(extra) - at) // 8}Q", extra, at))
            if len(wide) < (size, packed, offset).count(_FULL32):
                raise _damaged("a zip64 size is missing")
            size, packed, offset = (wide.pop(0) if number == _FULL32 else number for number in (size, packed, offset))
            return size, packed, offset
        at += length
    return size, packed, offset


def _decoded(raw: bytes, flags: int) -> str:
    """UTF-8 where announced or where it fits (macOS does not announce it), else code page 437."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "surrogateescape") if flags & 0x800 else raw.decode("cp437")
    return name.replace("\\", "/")


def _exactly(file: IO[bytes], start: int, length: int) -> bytes:
    return ByteRange(file, start, length).read(length) or b""


def _damaged(why: str) -> UploadRefused:
    return UploadRefused("unreadable_archive", f"unreadable archive: {why}")


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
