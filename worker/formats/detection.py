"""Which format an upload is in."""

from enum import StrEnum

from worker.formats.archives import Archive
from worker.formats.bounded_lines import BoundedLines, RowTooLongError
from worker.formats.containers import pickle_refused, unknown
from worker.formats.contents import Contents
from worker.formats.pairs import Kind
from worker.formats.refusals import UploadRefused

_NESTED = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".zst", ".bz2", ".xz"})
_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".npz", ".bin"})
_TABLES_LOOKED_INTO = 20


class Format(StrEnum):
    """Formats that are read; the values are the names used in the API."""

    FOLDER = "folder"
    """images in an archive with `metadata.csv`, `.tsv`, `.jsonl` or `.parquet`"""
    OPEN_CLIP = "open_clip_csv"
    """images in an archive with a tab-separated table of `filepath` and `title`"""
    WEBDATASET = "webdataset"
    """images in an archive with a `.txt` or `.json` of the same name; img2dataset's tars too"""
    PARQUET = "parquet"
    """images inside the rows of parquet files"""
    SAFETENSORS = "safetensors"
    """embeddings as tensors `image` and `text`"""
    NPY = "npy"
    """embeddings as `image.npy` and `text.npy`"""

    @property
    def kind(self) -> Kind:
        return "embeddings" if self in (Format.SAFETENSORS, Format.NPY) else "images"


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
    if contents.images and contents.captions:
        return Format.WEBDATASET
    seen = contents.described()
    if not contents.images and (pickles := _PICKLES & contents.suffixes.keys()):
        raise pickle_refused(f"an archive of {', '.join(sorted(pickles))} files")
    if contents.suffixes.keys() & _NESTED and not contents.images:
        seen += " (archives inside an archive are not opened)"
    elif contents.images:
        seen += ", but no table or text that says what the images show"
    raise unknown(f"an archive with {seen}")


def open_clip_tables(archive: Archive, contents: Contents) -> list[int]:
    """Tables whose header names `filepath` and `title`."""
    candidates = contents.tables[:_TABLES_LOOKED_INTO]
    return [at for at in candidates if {"filepath", "title"} <= _header(archive, at)]


def _header(archive: Archive, position: int) -> set[str]:
    lines = BoundedLines(archive.open(position), archive.limits.max_line_bytes)
    try:
        header = next(lines, "")
    except RowTooLongError:
        return set()
    finally:
        lines.close()
    return {name.strip().strip('"') for name in header.replace(",", "\t").split("\t")}
