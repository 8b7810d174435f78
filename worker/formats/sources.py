"""From a file to the reader of its format."""

import posixpath
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, cast

from worker.formats.archives import Archive
from worker.formats.byte_range import ByteRange, Extent, Spent
from worker.formats.containers import Container, sniff, unknown
from worker.formats.contents import Contents, survey
from worker.formats.decompressed import decompressed
from worker.formats.detection import Format, open_clip_tables, recognised
from worker.formats.embeddings import Embeddings
from worker.formats.folder import Folder
from worker.formats.limits import Limits
from worker.formats.matrices import Matrix
from worker.formats.npy import npy_matrix
from worker.formats.pairs import PairSource
from worker.formats.parquet_pairs import ParquetPairs
from worker.formats.refusals import UploadRefused
from worker.formats.rows import Table
from worker.formats.safetensors_file import safetensors_matrices
from worker.formats.tables import open_table
from worker.formats.tar_archive import TarArchive
from worker.formats.tar_members import BLOCK, is_header
from worker.formats.webdataset import Webdataset
from worker.formats.zip_archive import ZipArchive

_COMPRESSIONS = {Container.GZIP: "gzip", Container.BZIP2: "bzip2", Container.ZSTD: "zstd"}


def opened(
    path: Path, filename: str | None, wanted: Format | None, limits: Limits, files: ExitStack
) -> tuple[Format, PairSource]:
    """The format of `path` and its reader. What is opened is entered into `files`."""
    container = sniff(path, filename)
    file = files.enter_context(path.open("rb"))
    if container in (Container.PARQUET, Container.SAFETENSORS):
        found = Format[container.name]
        if wanted not in (None, found):
            raise _not_as_asked(wanted, f"it is a {found} file")
        return found, _lone_file(found, posixpath.basename(filename or path.name), file, limits)
    archive = _archive(path, container, file, limits, files)
    contents = survey(archive)
    found = wanted or recognised(archive, contents)
    return found, _source(found, archive, contents)


def _lone_file(found: Format, name: str, file: IO[bytes], limits: Limits) -> PairSource:
    size, spent = file.seek(0, 2), Spent(limits)

    def whole() -> IO[bytes]:
        return cast(IO[bytes], ByteRange(file, 0, size, spent))

    if found is Format.PARQUET:
        return ParquetPairs([(name, lambda: Extent(file, 0, size))], limits)
    return Embeddings(*safetensors_matrices(name, size, whole, limits), None, limits)


def _archive(path: Path, container: Container, file: IO[bytes], limits: Limits, files: ExitStack) -> Archive:
    if container is Container.ZIP:
        return ZipArchive(file, limits, path.parent)
    if container is not Container.TAR:
        file = files.enter_context(decompressed(path, _COMPRESSIONS[container], limits))
        if not is_header(file.read(BLOCK)):
            raise unknown(f"{_COMPRESSIONS[container]} around something that is not a tar")
    return TarArchive(file, limits, path.parent)


def _source(found: Format, archive: Archive, contents: Contents) -> PairSource:
    match found:
        case Format.FOLDER:
            return Folder(archive, _some(contents.metadata, found, "metadata.csv, .tsv, .jsonl or .parquet"))
        case Format.OPEN_CLIP:
            tables = open_clip_tables(archive, contents) or contents.metadata
            return Folder(archive, _some(tables, found, "table of filepath and title"))
        case Format.WEBDATASET:
            return Webdataset(archive, contents.images)
        case Format.PARQUET:
            return _parquet(archive, _some(contents.parquet or contents.metadata, found, ".parquet file"))
        case Format.SAFETENSORS:
            position = _one(archive, _some(contents.safetensors, found, ".safetensors file"))
            name, size = archive.members.name(position), archive.size(position)
            matrices = safetensors_matrices(name, size, partial(archive.open, position), archive.limits)
        case Format.NPY:
            sides = (_some(contents.image_npy, found, "image.npy"), _some(contents.text_npy, found, "text.npy"))
            image, text = (_one(archive, positions) for positions in sides)
            matrices = _npy(archive, image), _npy(archive, text)
    return Embeddings(*matrices, _table_beside(archive, contents), archive.limits)


def _parquet(archive: Archive, positions: list[int]) -> ParquetPairs:
    """In the order of names, which is the order in which shards are numbered."""
    by_name = sorted(positions, key=archive.members.name)
    return ParquetPairs([(archive.members.name(at), partial(archive.extent, at)) for at in by_name], archive.limits)


def _npy(archive: Archive, position: int) -> Matrix:
    name = archive.members.name(position)
    return npy_matrix(name, archive.size(position), partial(archive.open, position), archive.limits)


def _table_beside(archive: Archive, contents: Contents) -> Table | None:
    return open_table(archive, _one(archive, contents.metadata)) if contents.metadata else None


def _some(positions: list[int], found: Format, wanted: str) -> list[int]:
    if not positions:
        raise _not_as_asked(found, f"the archive holds no {wanted}")
    return positions


def _one(archive: Archive, positions: list[int]) -> int:
    if len(positions) > 1:
        names = " and ".join(archive.members.name(position) for position in positions[:2])
        raise UploadRefused("ambiguous_upload", f"the archive holds {names}; keep one of them")
    return positions[0]


def _not_as_asked(wanted: Format | None, why: str) -> UploadRefused:
    return UploadRefused("unknown_format", f"this upload cannot be read as {wanted}: {why}", "format")
