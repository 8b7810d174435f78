"""Opening a table of metadata inside an archive, and finding the columns of a pair in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from readers.archives.archive import Archive
from readers.archives.members import suffix
from readers.printable import printable
from readers.refusals import UploadRefused
from readers.tables.csv_table import CsvTable
from readers.tables.json_tables import JsonlTable
from readers.tables.parquet import ParquetTable
from readers.tables.rows import Table

CAPTION_COLUMNS = ("caption", "text", "captions")
_OPEN_CLIP_CAPTION_COLUMNS = ("title", *CAPTION_COLUMNS)
_TEXT_TABLES: dict[str, type[CsvTable] | type[JsonlTable]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonlTable,
}
TABLE_SUFFIXES = frozenset({*_TEXT_TABLES, ".parquet"})


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns say what. `key` falls back to `file`, and `file` is None for a table beside embeddings."""

    file: str | None
    key: str | None
    caption: str | None


def open_table(archive: Archive, position: int) -> Table:
    """The table at `position`, read as its suffix says."""
    name = archive.members.name(position)
    table: Table
    if suffix(name) == ".parquet":
        table = ParquetTable(name, partial(archive.extent, position), archive.limits)
    else:
        table = _TEXT_TABLES[suffix(name)](name, partial(archive.open, position), archive.limits)
    if len(table.columns) > archive.limits.max_columns:
        raise UploadRefused("unreadable_table", f"{name} has more than {archive.limits.max_columns} columns")
    repeated = [column for at, column in enumerate(table.columns) if column in table.columns[:at]]
    if repeated:
        raise UploadRefused("repeated_column", f"{name} has two columns named {repeated[0]}")
    return table


def image_columns(table: Table) -> Columns:
    """The columns of a table whose images are files: `file_name`, or open_clip's `filepath` and `title`."""
    file = column_of(table.columns, ("file_name", "filepath"))
    if file is None:
        raise _missing(table, "file_name")
    captions = CAPTION_COLUMNS if file == "file_name" else _OPEN_CLIP_CAPTION_COLUMNS
    caption = column_of(table.columns, captions)
    if caption is None:
        raise _missing(table, " or ".join(captions))
    return Columns(file, column_of(table.columns, ("key",)), caption)


def chosen(table: Table, columns: Columns) -> Columns:
    """`columns`, all of which the table has.

    Raises:
        UploadRefused: it lacks one.
    """
    for name in (columns.file, columns.caption):
        if name is not None and name not in table.columns:
            raise _missing(table, name)
    return columns


def embedding_columns(table: Table) -> Columns:
    """The columns of a table beside embeddings; it may lack them all."""
    key = column_of(table.columns, ("key", "uid", "file_name", "filepath"))
    return Columns(None, key, column_of(table.columns, ("caption", "text", "title")))


def first_caption_column(columns: tuple[str, ...]) -> str | None:
    """`caption`, else `text`, else `captions`. Each may hold a list: several captions of one image."""
    return column_of(columns, CAPTION_COLUMNS)


def column_of(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted names that there is."""
    return next((name for name in wanted if name in columns), None)


def _missing(table: Table, wanted: str) -> UploadRefused:
    seen = ", ".join(printable(column, 60) for column in table.columns[:50]) or "none"
    return UploadRefused("missing_column", f"{table.name} has no column {wanted}; its columns are: {seen}")
