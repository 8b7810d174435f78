"""An archive of webdataset shards, opened: the one kind of archive inside an archive that is (decision 13)."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.formats.archives import Archive
from worker.formats.refusals import MemberDamaged
from worker.formats.shard_sets import by_number
from worker.formats.tar_archive import Tar, TarArchive


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
            tars.append(Tar(name, archive.extent(position, unpacked)))
        except MemberDamaged as error:
            damaged[name] = f"{name}: unreadable archive: {error}"
    found = TarArchive(tars, archive.limits, scratch)
    found.damaged |= damaged
    found.upload = archive.upload
    return found
