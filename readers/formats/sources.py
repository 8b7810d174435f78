"""From a file to the reader of its format."""

import posixpath
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, cast

from readers.archives.archive import Archive, copied_to_scratch
from readers.archives.decompression import decompressed
from readers.archives.member_bytes import ByteRange, Extent, Spent
from readers.archives.shards import by_number, missing, opened_shards
from readers.archives.tar_archive import BLOCK, Tar, TarArchive, is_header
from readers.archives.zip_archive import ZipArchive
from readers.formats.coco import Coco, caption_files
from readers.formats.containers import Container, sniff, unknown
from readers.formats.contents import Contents, is_image, survey
from readers.formats.croissant import croissant_source
from readers.formats.detection import Format, open_clip_tables, recognised
from readers.formats.embeddings import Embeddings
from readers.formats.folder import Folder
from readers.formats.image_folder import ImageFolder
from readers.formats.left_out import left_out
from readers.formats.parquet import ParquetEmbeddings, ParquetPairs, has_embeddings, has_images
from readers.formats.webdataset import Webdataset
from readers.limits import Limits
from readers.matrices.matrix import Matrix
from readers.matrices.npy import npy_matrix
from readers.matrices.safetensors import safetensors_matrices
from readers.pairs import PairSource
from readers.refusals import UploadRefused
from readers.tables.metadata import open_table
from readers.tables.parquet import ParquetFile, parquet_file

_COMPRESSIONS = {Container.GZIP: "gzip", Container.BZIP2: "bzip2", Container.ZSTD: "zstd"}


@dataclass(frozen=True, slots=True)
class Opened:
    """An upload whose format is known. `missing_shards` are named; `left_out` counts files of other formats by kind."""

    format: Format
    source: PairSource
    missing_shards: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    archive: Archive | None = None


def opened(
    path: Path, filename: str | None, wanted: Format | None, limits: Limits, template: str, files: ExitStack
) -> Opened:
    """The format of `path` and its reader. What is opened is entered into `files`."""
    container = sniff(path, filename)
    file = files.enter_context(path.open("rb"))
    if container in (Container.PARQUET, Container.SAFETENSORS):
        name = posixpath.basename(filename or path.name)
        found, source = _lone_file(container, name, file, limits)
        _check_asked(wanted, found)
        return Opened(found, source, missing([name]))
    archive = _archive(path, container, file, limits, files)
    archive.upload = file
    contents = survey(archive)
    if wanted in (None, Format.WEBDATASET) and contents.only_shards:
        return _of_shards(archive, contents, path, files)
    found = wanted or recognised(archive, contents)
    chosen = _chosen(found, archive, contents)
    found, source = _source(found, archive, contents, chosen, template)
    _check_asked(wanted, found)
    others = left_out(archive, contents, found, chosen)
    return Opened(found, source, _missing(found, archive, contents), others, archive)


def _of_shards(archive: Archive, contents: Contents, path: Path, files: ExitStack) -> Opened:
    shards = opened_shards(archive, contents.tars, path.parent, files)
    inside = survey(shards)
    if not (inside.images and inside.captions):
        raise unknown(f"an archive of {len(contents.tars)} .tar with {inside.described()}")
    return Opened(
        Format.WEBDATASET,
        Webdataset(shards, inside.images),
        missing(archive.members.name(position) for position in contents.tars),
        left_out(archive, contents, Format.WEBDATASET, contents.tars),
        shards,
    )


def _missing(found: Format, archive: Archive, contents: Contents) -> tuple[str, ...]:
    if found in (Format.PARQUET, Format.PARQUET_EMBEDDINGS):
        return missing(archive.members.name(position) for position in contents.parquet)
    if found is Format.WEBDATASET:
        folders = {posixpath.dirname(name) for name in archive.members if is_image(name)}
        if all(posixpath.basename(folder).isdigit() for folder in folders):  # img2dataset's folders of files
            return missing(folders)
    return ()


def _lone_file(container: Container, name: str, file: IO[bytes], limits: Limits) -> tuple[Format, PairSource]:
    size, spent = file.seek(0, 2), Spent(limits)

    def whole() -> IO[bytes]:
        return cast(IO[bytes], ByteRange(file, 0, size, spent))

    if container is Container.PARQUET:
        return _of_parquet([parquet_file(name, lambda: Extent(file, 0, size), limits)], limits)
    return Format.SAFETENSORS, Embeddings(*safetensors_matrices(name, size, whole, limits, at=0), None, limits)


def _archive(path: Path, container: Container, file: IO[bytes], limits: Limits, files: ExitStack) -> Archive:
    if container is Container.ZIP:
        return ZipArchive(file, limits, path.parent)
    if container is not Container.TAR:
        stream = decompressed(file, path.stat().st_size, _COMPRESSIONS[container], limits, Spent(limits))
        file = files.enter_context(copied_to_scratch(stream, path.parent))
        if not is_header(file.read(BLOCK)):
            raise unknown(f"{_COMPRESSIONS[container]} around something that is not a tar")
    return TarArchive([Tar("", Extent(file, 0, file.seek(0, 2)))], limits, path.parent)


def _chosen(found: Format, archive: Archive, contents: Contents) -> list[int]:
    """Positions of the files that say what the pairs are, in the order in which `_source` takes them."""
    match found:
        case Format.FOLDER:
            return _some(contents.metadata, found, "metadata.csv, .tsv, .jsonl or .parquet")
        case Format.OPEN_CLIP:
            tables = open_clip_tables(archive, contents) or contents.metadata
            return _some(tables, found, "table of filepath and title")
        case Format.COCO:
            return _some(caption_files(archive, contents), found, "JSON of COCO captions")
        case Format.CROISSANT:
            return [_one(archive, _some(contents.croissants, found, "croissant.json"))]
        case Format.WEBDATASET:
            return []
        case Format.IMAGE_FOLDER:
            if not contents.images:
                raise _not_as_asked(found, "the archive holds no image")
            return []
        case Format.PARQUET | Format.PARQUET_EMBEDDINGS:
            return _some(contents.parquet or contents.metadata, found, ".parquet file")
        case Format.SAFETENSORS:
            matrices = [_one(archive, _some(contents.safetensors, found, ".safetensors file"))]
        case Format.NPY:
            sides = (_some(contents.image_npy, found, "image.npy"), _some(contents.text_npy, found, "text.npy"))
            matrices = [_one(archive, positions) for positions in sides]
    tables = contents.metadata or (contents.parquet if len(contents.parquet) == 1 else [])
    return [*matrices, *([_one(archive, tables)] if tables else [])]


def _source(
    found: Format, archive: Archive, contents: Contents, chosen: list[int], template: str
) -> tuple[Format, PairSource]:
    match found:
        case Format.FOLDER | Format.OPEN_CLIP:
            return found, Folder(archive, chosen)
        case Format.COCO:
            return found, Coco(archive, chosen)
        case Format.CROISSANT:
            return found, croissant_source(archive, chosen[0])
        case Format.WEBDATASET:
            return found, Webdataset(archive, contents.images)
        case Format.IMAGE_FOLDER:
            return found, ImageFolder(archive, contents.images, template)
        case Format.PARQUET | Format.PARQUET_EMBEDDINGS:
            return _parquet(archive, chosen)
        case Format.SAFETENSORS:
            position, *table = chosen
            name, size = archive.members.name(position), archive.size(position)
            matrices = safetensors_matrices(
                name, size, partial(archive.open, position), archive.limits, archive.offset(position)
            )
        case Format.NPY:
            image, text, *table = chosen
            matrices = _npy(archive, image), _npy(archive, text)
    return found, Embeddings(*matrices, open_table(archive, table[0]) if table else None, archive.limits)


def _parquet(archive: Archive, positions: list[int]) -> tuple[Format, PairSource]:
    """In the order of names, which is the order in which shards are numbered."""
    by_name = sorted(positions, key=lambda at: by_number(archive.members.name(at)))
    limits = archive.limits
    return _of_parquet(
        [parquet_file(archive.members.name(at), partial(archive.extent, at), limits) for at in by_name], limits
    )


def _of_parquet(files: list[ParquetFile], limits: Limits) -> tuple[Format, PairSource]:
    """Of images where the first file has a column of them, else of embeddings where it has those."""
    columns = files[0].columns
    if not has_images(columns) and has_embeddings(columns):
        return Format.PARQUET_EMBEDDINGS, ParquetEmbeddings(files, limits)
    return Format.PARQUET, ParquetPairs(files, limits)


def _npy(archive: Archive, position: int) -> Matrix:
    name = archive.members.name(position)
    opened_at = partial(archive.open, position)
    return npy_matrix(name, archive.size(position), opened_at, archive.limits, archive.offset(position))


def _some(positions: list[int], found: Format, wanted: str) -> list[int]:
    if not positions:
        raise _not_as_asked(found, f"the archive holds no {wanted}")
    return positions


def _one(archive: Archive, positions: list[int]) -> int:
    if len(positions) > 1:
        names = " and ".join(archive.members.name(position) for position in positions[:2])
        raise UploadRefused("ambiguous_upload", f"the archive holds {names}; keep one of them")
    return positions[0]


def _check_asked(wanted: Format | None, found: Format) -> None:
    """What was asked for is what it is; `parquet` stands for embeddings in parquet too."""
    if wanted not in (None, found) and (wanted, found) != (Format.PARQUET, Format.PARQUET_EMBEDDINGS):
        raise _not_as_asked(wanted, f"it is {found}")


def _not_as_asked(wanted: Format | None, why: str) -> UploadRefused:
    return UploadRefused("unknown_format", f"this upload cannot be read as {wanted}: {why}", "format")
