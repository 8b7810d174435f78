"""Which format an upload is in."""

from enum import StrEnum

from readers.archives.archive import Archive
from readers.formats.coco import caption_files
from readers.formats.containers import pickle_refused, unknown
from readers.formats.contents import IMAGE_SUFFIXES, Contents
from readers.formats.image_folder import has_classes
from readers.pairs import Kind
from readers.refusals import UploadRefused
from readers.tables.rows import BoundedLines, RowTooLongError

_NESTED = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".zst", ".bz2", ".xz"})
_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin"})
_TABLES_LOOKED_INTO = 20


class Format(StrEnum):
    """Formats that are read; the values are the names used in the API."""

    FOLDER = "folder"
    """images in an archive with `metadata.csv`, `.tsv`, `.jsonl` or `.parquet`"""
    OPEN_CLIP = "open_clip_csv"
    """images in an archive with a tab-separated table of `filepath` and `title`"""
    WEBDATASET = "webdataset"
    """images in an archive with a `.txt` or `.json` of the same name; img2dataset's tars too, and archives of tars"""
    COCO = "coco"
    """images in an archive with a JSON of COCO captions"""
    CROISSANT = "croissant"
    """an archive that a `croissant.json` describes"""
    IMAGE_FOLDER = "imagefolder"
    """images in folders named by their class, from which captions are made"""
    PARQUET = "parquet"
    """images inside the rows of parquet files"""
    PARQUET_EMBEDDINGS = "parquet_embeddings"
    """embeddings as columns of parquet files"""
    SAFETENSORS = "safetensors"
    """embeddings as tensors `image` and `text`"""
    NPY = "npy"
    """embeddings as `image.npy` and `text.npy`"""

    @property
    def kind(self) -> Kind:
        return "embeddings" if self in (Format.PARQUET_EMBEDDINGS, Format.SAFETENSORS, Format.NPY) else "images"


def named_format(name: str) -> Format:
    """The format a client asks for.

    Raises:
        UploadRefused: there is none of that name.
    """
    try:
        return Format(name)
    except ValueError:
        names = ", ".join(Format)
        raise UploadRefused("unknown_format", f"there is no format {name}; there are: {names}", "format") from None


def recognised(archive: Archive, contents: Contents) -> Format:
    """The format of an archive, by the files in it."""
    if contents.croissants:
        return Format.CROISSANT
    if contents.image_npy and contents.text_npy:
        return Format.NPY
    if contents.safetensors:
        return Format.SAFETENSORS
    if contents.metadata:
        return Format.FOLDER
    if contents.parquet and not contents.images:
        return Format.PARQUET
    if open_clip_tables(archive, contents):
        return Format.OPEN_CLIP
    if contents.images and caption_files(archive, contents):
        return Format.COCO
    if contents.images and contents.captions and (captions_beside(archive, contents) or not has_classes(archive)):
        return Format.WEBDATASET
    if contents.images and has_classes(archive):
        return Format.IMAGE_FOLDER
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


def captions_beside(archive: Archive, contents: Contents) -> bool:
    """Whether one of the first captions lies beside an image of its name."""
    for position in contents.first_captions:
        folder, slash, base = archive.members.name(position).rpartition("/")
        stem = folder + slash + base.partition(".")[0]
        if any(archive.members.find(stem + kind) is not None for kind in IMAGE_SUFFIXES):
            return True
    return False


def open_clip_tables(archive: Archive, contents: Contents) -> list[int]:
    """Tables whose header names `filepath` and `title`."""
    candidates = contents.tables[:_TABLES_LOOKED_INTO]
    return [at for at in candidates if {"filepath", "title"} <= _header(archive, at)]


def _header(archive: Archive, position: int) -> set[str]:
    lines = BoundedLines(archive.open(position), archive.limits.max_line_bytes, archive.members.name(position))
    try:
        header = next(lines, "")
    except RowTooLongError:
        return set()
    finally:
        lines.close()
    return {name.strip().strip('"') for name in header.replace(",", "\t").split("\t")}
