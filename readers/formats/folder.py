"""A folder of images with tables that name them: `metadata.*`, or open_clip's tab-separated CSV."""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import final

from readers.archives.archive import Archive
from readers.formats.definition import Contents, DatasetFormat, is_image, some
from readers.pair_fields import image_pairs, shown
from readers.pairs import ImagePair, Item, RejectedPair
from readers.printable import printable
from readers.refusals import PairRefused, Rejection, UploadRefused
from readers.tables.metadata import Columns, chosen, image_columns, open_table
from readers.tables.rows import BadRow, BoundedLines, Row, RowTooLongError

_TABLES_LOOKED_INTO = 20


@final
class Folder:
    """Pairs in the order of the tables and their rows. An image's name is relative to the table that names it.

    `columns` are those of every table, where a description names them; `otherwise` finds what is not where a row says.
    """

    listable = True

    def __init__(
        self,
        archive: Archive,
        tables: Sequence[int],
        columns: Columns | None = None,
        otherwise: Callable[[str], int | None] | None = None,
    ) -> None:
        self._archive, self._limits, self._otherwise = archive, archive.limits, otherwise
        folders = [posixpath.dirname(archive.members.name(table)) for table in tables]
        for at, folder in enumerate([] if columns else folders):
            if folder in folders[:at]:
                one, other = (archive.members.name(tables[n]) for n in (folders.index(folder), at))
                raise UploadRefused("ambiguous_upload", f"{one} and {other} lie in one folder; keep one of them")
        self._tables = [open_table(archive, position) for position in tables]
        self._columns = [chosen(table, columns) if columns else image_columns(table) for table in self._tables]
        self._named = bytearray(len(archive.members))

    @property
    def total(self) -> int | None:
        counts = [table.total for table in self._tables]
        return sum(count for count in counts if count is not None) if None not in counts else None

    @property
    def unreferenced(self) -> int:
        return sum(is_image(name) for name, named in zip(self._archive.members, self._named, strict=True) if not named)

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column for table in self._tables for column in table.ignored_columns))

    def __iter__(self) -> Iterator[Item]:
        for table, columns in zip(self._tables, self._columns, strict=True):
            folder = posixpath.dirname(table.name)
            for row in table:
                if isinstance(row, BadRow):
                    yield RejectedPair(None, None, f"{row.place}: {row.reason}")
                else:
                    yield from self._pairs(row, columns, folder)

    def _pairs(self, row: Row, columns: Columns, folder: str) -> Iterator[ImagePair | RejectedPair]:
        values, limits = row.values, self._limits
        file = values.get(columns.file or "")
        key = values.get(columns.key) if columns.key else file
        caption = values.get(columns.caption or "")
        try:
            position = self._find(file, folder)
        except PairRefused as error:
            yield RejectedPair(shown(key), shown(caption), f"{row.place}: {error}", error.rejection)
            return
        yield from image_pairs(
            where=row.place,
            key=key,
            caption=caption,
            values=values,
            # A table that keys its rows otherwise keeps the file's name as one of the other columns.
            taken={columns.key or columns.file, columns.caption},
            image=partial(self._archive.image, position),
            limits=limits,
        )

    def _find(self, file: object, folder: str) -> int:
        if not isinstance(file, str) or not file:
            raise PairRefused("no file name", Rejection.NO_IMAGE)
        for form in dict.fromkeys((file, file.replace("\\", "/"))):
            position = self._archive.members.find(posixpath.normpath(posixpath.join(folder, form)))
            if position is None and self._otherwise is not None:
                position = self._otherwise(form)
            if position is not None:
                self._named[position] = 1
                return position
        raise PairRefused(f"no file {printable(file, 300)} in the archive", Rejection.NO_IMAGE)


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


def _choose_folder(_archive: Archive, contents: Contents) -> list[int]:
    return some(contents.metadata, "folder", "metadata.csv, .tsv, .jsonl or .parquet")


def _choose_open_clip(archive: Archive, contents: Contents) -> list[int]:
    return some(
        open_clip_tables(archive, contents) or contents.metadata, "open_clip_csv", "table of filepath and title"
    )


FOLDER = DatasetFormat(
    name="folder",
    kind="images",
    precedence=40,
    fits=lambda _archive, contents: bool(contents.metadata),
    choose=_choose_folder,
    read=lambda archive, _contents, chosen, _template: Folder(archive, chosen),
)
"""images in an archive with `metadata.csv`, `.tsv`, `.jsonl` or `.parquet`"""

OPEN_CLIP = DatasetFormat(
    name="open_clip_csv",
    kind="images",
    precedence=60,
    fits=lambda archive, contents: bool(open_clip_tables(archive, contents)),
    choose=_choose_open_clip,
    read=lambda archive, _contents, chosen, _template: Folder(archive, chosen),
)
"""images in an archive with a tab-separated table of `filepath` and `title`"""
