"""A tar, already uncompressed, or a set of them that is read as one; its members header by header.

`tarfile` reads an extended header of any size into memory and has let hostile ones loop; this keeps to POSIX
1003.1 pax and the GNU long names that writers use, and refuses what a dataset has no need of.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from readers.archives.archive import Archive
from readers.archives.member_bytes import ByteRange, Extent, StoredMember
from readers.archives.members import MemberIndex, plain_name
from readers.limits import Limits
from readers.printable import printable
from readers.refusals import UploadRefused

BLOCK = 512
_EMPTY = bytes(BLOCK)
_LONGEST_EXTENDED_HEADER = 1 << 20
_PADDING_BETWEEN_TARS = 1 << 20
_FILE_TYPES = frozenset(b"\x0007")
_HEADERS_OF_THE_NEXT = frozenset(b"xgLK")
_UNSAFE_TYPES = {0x31: "a hard link", 0x32: "a symbolic link", 0x33: "a device", 0x34: "a device", 0x36: "a FIFO"}


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


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file: its bytes lie at `start`."""

    name: str
    start: int
    size: int


def is_header(block: bytes) -> bool:
    """Whether the checksum of a header holds (it is summed with its own field as blanks, once signed by mistake)."""
    if len(block) < BLOCK or block == _EMPTY:
        return False
    try:
        announced = _number(block[148:156])
    except UploadRefused:
        return False
    summed = block[:148] + b" " * 8 + block[156:BLOCK]
    total = sum(summed)
    return total == announced or total - 256 * sum(byte > 127 for byte in summed) == announced


def walk(file: IO[bytes], start: int, length: int) -> Iterator[TarMember | None]:
    """Every regular file of the tar in these bytes of `file`; None for a folder. Tars joined end to end are one."""
    at, empty, end = start, 0, start + length
    extended: dict[str, str] = {}
    while at + BLOCK <= end and empty <= _PADDING_BETWEEN_TARS:
        block = _read(file, at, BLOCK)
        if block == _EMPTY:
            at, empty = at + BLOCK, empty + BLOCK
            continue
        if not is_header(block):
            if empty:
                return
            raise _damaged(f"the header at byte {at - start} is broken")
        empty = 0
        kind, data = block[156], at + BLOCK
        size = _number(block[124:136])
        if kind not in _HEADERS_OF_THE_NEXT:
            size = int(extended.get("size", size))
        at = data + -(-size // BLOCK) * BLOCK
        if data + size > end:
            raise _damaged("it ends too early; it was probably cut short")
        if kind in _HEADERS_OF_THE_NEXT:
            _check_extended(size)
            if kind == ord("x"):
                extended |= _pax(_read(file, data, size))
            elif kind == ord("L"):
                extended["path"] = _text(_read(file, data, size))
            continue
        name = extended.get("path") or _plain_name(block)
        extended = {}
        yield _member(name, kind, data, size)
    if not empty and at < end and any(_read(file, at, end - at)):
        raise _damaged("it ends in the middle of a header; it was probably cut short")


def _member(name: str, kind: int, start: int, size: int) -> TarMember | None:
    if kind in _UNSAFE_TYPES:
        raise UploadRefused("unsafe_member", f"{printable(name)} is {_UNSAFE_TYPES[kind]}; only files are read")
    if kind == ord("5") or (kind == 0 and name.endswith("/")):
        return None
    if kind not in _FILE_TYPES:
        shown = printable(chr(kind))
        raise UploadRefused("unsafe_member", f"{printable(name)} is of kind {shown!r}; only plain files are read")
    return TarMember(name, start, size)


def _pax(records: bytes) -> dict[str, str]:
    """`path` and `size` out of records of the form `length key=value newline`."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(records) and records[at]:
        digits = records[at : at + 10].split(b" ", 1)[0]
        length = int(digits) if digits.isdigit() else 0
        record = records[at + len(digits) + 1 : at + length - 1]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or at + length > len(records) or not equals:
            raise _damaged("an extended header is broken")
        if key.startswith(b"GNU.sparse"):
            raise UploadRefused("unsafe_member", "the archive holds a sparse file; only plain files are read")
        if key == b"path":
            fields["path"] = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise _damaged("an extended header is broken")
            fields["size"] = value.decode()
        at += length
    return fields


def _check_extended(size: int) -> None:
    if size > _LONGEST_EXTENDED_HEADER:
        raise _damaged(f"an extended header has {size} bytes")


def _plain_name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 where the first byte is 0x80; 0xFF would be negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        raise _damaged("a header holds no number where one belongs")
    return int(digits or b"0", 8)


def _read(file: IO[bytes], start: int, length: int) -> bytes:
    return ByteRange(file, start, length).read(length) or b""


def _damaged(why: str) -> UploadRefused:
    return UploadRefused("unreadable_archive", f"unreadable archive: {why}")
