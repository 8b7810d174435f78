"""An archive of webdataset shards, opened: the one kind of archive inside an archive that is (decision 13)."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from readers.archives.archive import Archive
from readers.archives.byte_range import ByteRange, Extent
from readers.archives.decompression import compression_of, decompressed
from readers.archives.shard_sets import by_number
from readers.archives.tar_archive import Tar, TarArchive
from readers.refusals import MemberDamaged, UploadRefused, damage_refused

_CHUNK = 64 * 1024  # at most so much of what came before a cut is lost


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
    found = TarArchive(tars, archive.limits, scratch)
    found.damaged |= damaged
    found.upload = archive.upload
    return found


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
