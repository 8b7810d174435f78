"""The table of formats, and from a file to its format and the reader of that.

A format is one file in this folder, which ends in its `DatasetFormat`, and one line of `Format`.
"""

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import IO, Self

from readers.archives.archive import Archive, copied_to_scratch
from readers.archives.decompression import decompressed
from readers.archives.member_bytes import Extent, Spent
from readers.archives.members import suffix
from readers.archives.shards import missing, opened_shards
from readers.archives.tar_archive import BLOCK, Tar, TarArchive, is_header
from readers.archives.zip_archive import ZipArchive
from readers.formats import coco, croissant, embeddings, folder, image_folder, parquet, webdataset
from readers.formats.containers import Container, pickle_refused, sniff, unknown
from readers.formats.definition import Contents, DatasetFormat, captions_beside, not_of_format, survey
from readers.limits import Limits
from readers.pairs import Kind, PairSource
from readers.refusals import UploadRefused

_COMPRESSIONS = {Container.GZIP: "gzip", Container.BZIP2: "bzip2", Container.ZSTD: "zstd"}
_NESTED = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".zst", ".bz2", ".xz"})
_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin"})


@unique
class Format(StrEnum):
    """Every format that is read, by its name in the API, in the order in which they are listed there."""

    FOLDER = folder.FOLDER
    OPEN_CLIP = folder.OPEN_CLIP
    WEBDATASET = webdataset.WEBDATASET
    COCO = coco.COCO
    CROISSANT = croissant.CROISSANT
    IMAGE_FOLDER = image_folder.IMAGE_FOLDER
    PARQUET = parquet.PARQUET
    PARQUET_EMBEDDINGS = parquet.PARQUET_EMBEDDINGS
    SAFETENSORS = embeddings.SAFETENSORS
    NPY = embeddings.NPY

    definition: DatasetFormat

    def __new__(cls, definition: DatasetFormat) -> Self:
        member = str.__new__(cls, definition.name)
        member._value_ = definition.name
        member.definition = definition
        return member

    @property
    def kind(self) -> Kind:
        return self.definition.kind


_BY_NAME = {format_.value: format_ for format_ in Format}
_ALONE = {Container.PARQUET: Format.PARQUET, Container.SAFETENSORS: Format.SAFETENSORS}


@dataclass(frozen=True, slots=True)
class Opened:
    """An upload whose format is known. `missing_shards` are named; `left_out` counts files of other formats by kind."""

    format: Format
    source: PairSource
    missing_shards: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    archive: Archive | None = None


def named_format(name: str) -> Format:
    """The format that a client calls an upload.

    Raises:
        UploadRefused: there is none of that name.
    """
    if name not in _BY_NAME:
        names = ", ".join(Format)
        raise UploadRefused("unknown_format", f"there is no format {name}; there are: {names}", "format")
    return _BY_NAME[name]


def opened(
    path: Path, filename: str | None, requested: Format | None, limits: Limits, template: str, files: ExitStack
) -> Opened:
    """The format of `path` and its reader. What is opened is entered into `files`."""
    container = sniff(path, filename)
    file = files.enter_context(path.open("rb"))
    if container in _ALONE:
        return _alone(_ALONE[container], posixpath.basename(filename or path.name), file, requested, limits)
    archive = _archive(path, container, file, limits, files)
    archive.upload = file
    contents = survey(archive)
    if requested in (None, Format.WEBDATASET) and contents.only_shards:
        return _of_shards(archive, contents, path, files)
    candidate = requested or recognised(archive, contents)
    chosen = candidate.definition.choose(archive, contents)
    source = candidate.definition.read(archive, contents, chosen, template)
    settled = _settled(candidate, source, requested)
    gaps = missing(settled.definition.numbered(archive, contents))
    return Opened(settled, source, gaps, _left_out(archive, contents, settled, chosen), archive)


def recognised(archive: Archive, contents: Contents) -> Format:
    """The format of an archive, by the files in it.

    Raises:
        UploadRefused: it is in none; the message says what was seen.
    """
    for candidate in sorted(Format, key=lambda one: one.definition.precedence):
        if candidate.definition.fits(archive, contents):
            return candidate
    seen = contents.described()
    if not contents.images and (pickles := _PICKLES & contents.suffixes.keys()):
        raise pickle_refused(f"an archive of {', '.join(sorted(pickles))} files")
    if contents.suffixes.keys() & _NESTED and not contents.images:
        seen += (
            " (of archives inside an archive only webdataset's .tar shards, .gz, .bz2 and .zst among them, are opened)"
        )
    elif contents.images:
        seen += (
            ", but nothing that says what they show: no metadata.csv, .tsv, .jsonl or .parquet, no table of filepath "
            "and title, no .txt or .json beside the images, and no folders of one depth that could be classes"
        )
    raise unknown(f"an archive with {seen}")


def _archive(path: Path, container: Container, file: IO[bytes], limits: Limits, files: ExitStack) -> Archive:
    if container is Container.ZIP:
        return ZipArchive(file, limits, path.parent)
    if container is not Container.TAR:
        stream = decompressed(file, path.stat().st_size, _COMPRESSIONS[container], limits, Spent(limits))
        file = files.enter_context(copied_to_scratch(stream, path.parent))
        if not is_header(file.read(BLOCK)):
            raise unknown(f"{_COMPRESSIONS[container]} around something that is not a tar")
    return TarArchive([Tar("", Extent(file, 0, file.seek(0, 2)))], limits, path.parent)


def _alone(candidate: Format, name: str, file: IO[bytes], requested: Format | None, limits: Limits) -> Opened:
    """A file that is in no archive."""
    read = candidate.definition.read_alone
    assert read is not None  # noqa: S101  see `_ALONE`
    source = read(name, file, limits)
    return Opened(_settled(candidate, source, requested), source, missing([name]))


def _of_shards(archive: Archive, contents: Contents, path: Path, files: ExitStack) -> Opened:
    """An archive of webdataset's tars."""
    shards = opened_shards(archive, contents.tars, path.parent, files)
    inside = survey(shards)
    if not (inside.images and inside.captions):
        raise unknown(f"an archive of {len(contents.tars)} .tar with {inside.described()}")
    return Opened(
        Format.WEBDATASET,
        webdataset.Webdataset(shards, inside.images),
        missing(archive.members.name(position) for position in contents.tars),
        _left_out(archive, contents, Format.WEBDATASET, contents.tars),
        shards,
    )


def _settled(candidate: Format, source: PairSource, requested: Format | None) -> Format:
    """The format, which is the one requested; `parquet` stands for embeddings in parquet too."""
    settle = candidate.definition.settled
    settled = _BY_NAME[settle(source)] if settle is not None else candidate
    either = (requested, settled) == (Format.PARQUET, Format.PARQUET_EMBEDDINGS)
    if requested not in (None, settled) and not either:
        raise not_of_format(str(requested), f"it is {settled}")
    return settled


def _left_out(archive: Archive, contents: Contents, format_: Format, used: Collection[int]) -> dict[str, int]:
    """Files of a dataset's own kinds that are not read, counted by kind: a mixture is read as one format, and says so.

    `used` are the positions that are read.
    """
    definition = format_.definition
    if definition.complete:
        return {}
    decisive = (
        contents.metadata,
        contents.tables,
        contents.parquet,
        contents.safetensors,
        contents.image_npy,
        contents.text_npy,
        contents.tars,
    )
    counts: Counter[str] = Counter()
    for position in (at for positions in decisive for at in positions if at not in used):
        name = archive.members.name(position)
        if not definition.repeated(name):
            counts[suffix(name)] += 1
    if contents.images and not definition.takes_images:
        counts["images"] = contents.images
    if contents.images and not definition.takes_captions and captions_beside(archive, contents):
        counts["captions beside images"] = contents.captions
    return dict(counts)
