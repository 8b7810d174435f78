"""Sets of numbered files: their order, which numbers are missing, and archives of webdataset shards, opened.

Those are the one kind of archive inside an archive that is opened (decision 13).
"""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from readers.archives.archive import Archive
from readers.archives.decompression import compression_of, decompressed
from readers.archives.member_bytes import ByteRange, Extent
from readers.archives.tar_archive import Tar, TarArchive
from readers.refusals import MemberDamaged, UploadRefused, damage_refused

_CHUNK = 64 * 1024  # at most so much of what came before a cut is lost
_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d+)(?P<of>-of-(?P<count>\d+))?(?P<tail>\D*(?:bz2)?)", re.DOTALL)
_NUMBER = re.compile(r"([0-9]+)")
_MOST_NAMED = 20
_MOST_MISSING = 100_000


def opened_shards(archive: Archive, positions: Sequence[int], scratch: Path, files: ExitStack) -> TarArchive:
    """The tars at these positions as one archive, in the order of their names, under one set of limits.

    A stored tar is read where it lies. Compressed ones are unpacked into one temporary file, which is entered
    into `files`.
    """
    unpacked = files.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115
    tars, damaged = [], {}
    for position in sorted(positions, key=lambda at: by_number(archive.members.name(at))):
        name = archive.members.name(position)
        try:
            extent = archive.extent(position, unpacked)
        except MemberDamaged as error:
            damaged[name] = f"{name}: unreadable archive: {error}"
            continue
        if (compression := compression_of(name)) is not None:
            extent, reason = _decompressed(extent, compression, archive, unpacked, name)
            damaged |= {name: reason} if reason else {}
        tars.append(Tar(name, extent))
    shards = TarArchive(tars, archive.limits, scratch)
    shards.damaged |= damaged
    shards.upload = archive.upload
    return shards


def _decompressed(
    packed: Extent, compression: str, archive: Archive, scratch: IO[bytes], name: str
) -> tuple[Extent, str | None]:
    """A compressed tar, unpacked to the end of `scratch`, or what of it came before the damage, and the reason."""
    start, reason = scratch.seek(0, 2), None
    content = cast(IO[bytes], ByteRange(packed.file, packed.start, packed.length))
    try:
        with (
            damage_refused(),
            decompressed(content, packed.length, compression, archive.limits, archive.spent) as stream,
        ):
            shutil.copyfileobj(stream, scratch, _CHUNK)
    except UploadRefused as refused:
        reason = f"{name}: {refused.message}"
        if refused.code != "unreadable_archive":
            raise UploadRefused(refused.code, reason, refused.param) from refused
    scratch.flush()
    return Extent(scratch, start, scratch.tell() - start), reason


def by_number(name: str) -> tuple[list[str | int], str]:
    """Sorts names as they are numbered: `9.tar` before `10.tar`."""
    parts = _NUMBER.split(name)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """The shards that a set of names leaves out, by name: `00001.tar` between `00000.tar` and `00002.tar`.

    A set starts at 0, or at 1, and ends at its highest number or at what `-of-00005` says. At most twenty are named;
    the last then says how many more.
    """
    sets: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            sets[match["head"], match["of"] or "", match["tail"]].add(match["number"])
    lost: list[str] = []
    for (head, of, tail), digits in sorted(sets.items()):
        width, numbers = min(map(len, digits)), {int(digit) for digit in digits}
        if len(numbers) < 2 and not of:
            continue  # a single number is no set
        end = int(of.removeprefix("-of-")) if of else max(numbers) + 1
        first = 0 if of or 0 in numbers else min(min(numbers), 1)
        if end - len(numbers) > _MOST_MISSING:
            continue  # years, hashes, identifiers: no numbering of shards
        lost += [f"{head}{n:0{width}d}{of}{tail}" for n in range(first, end) if n not in numbers]
    return tuple(lost) if len(lost) <= _MOST_NAMED else (*lost[:_MOST_NAMED], f"and {len(lost) - _MOST_NAMED} more")
