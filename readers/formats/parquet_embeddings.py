"""Embeddings as columns of parquet files, beside keys and captions."""

from collections.abc import Iterator, Sequence
from typing import final

from readers.formats.embeddings import Described, described_row, embedding_items
from readers.limits import Limits
from readers.pairs import Item, RejectedPair
from readers.printable import printable
from readers.refusals import Rejection, UploadRefused
from readers.tables.metadata import Columns, column_of
from readers.tables.parquet import Column, ParquetFile, parquet_vectors
from readers.tables.rows import BadRow, Row

_SIDES = {"image": ("image", "img"), "text": ("text", "txt", "caption")}


@final
class ParquetEmbeddings:
    """Rows in the order of the files. The embeddings are the columns of float lists named `image…` and `text…`.

    The key is `key` or `uid`, else the row's number, which counts from 0 over all files.
    """

    unreferenced = 0

    def __init__(self, files: Sequence[ParquetFile], limits: Limits) -> None:
        self._files, self._limits = files, limits
        self._sides = [[_side(file, side) for side in _SIDES] for file in files]
        self.total: int | None = sum(file.rows for file in files)
        self.ignored_columns = tuple(
            dict.fromkeys(column.name for file in files for column in file.columns if column.holds_bytes)
        )

    def __iter__(self) -> Iterator[Item]:
        first, width = 0, None
        for file, sides in zip(self._files, self._sides, strict=True):
            others = [column.name for column in file.columns if not column.holds_bytes and column.name not in sides]
            columns = Columns(None, column_of(others, ("key", "uid")), column_of(others, ("caption", "text", "title")))
            in_file = 0
            for frame in parquet_vectors(file, self._limits, others, sides, width):
                width = width or frame.width
                described = []
                for at, values in enumerate(frame.rows):
                    row = self._described(file.name, in_file + at, first + at, values, columns)
                    if at in frame.bad and not isinstance(row, RejectedPair):
                        reason = f"row {in_file + at + 1} of {file.name}: {frame.bad[at]}"
                        row = RejectedPair(row[0], row[1], reason, Rejection.UNFIT_EMBEDDING)
                    described.append(row)
                yield from embedding_items(first, frame.image, frame.text, described)
                in_file += len(described)
                first += len(described)

    def _described(
        self, name: str, in_file: int, number: int, values: dict[str, object] | str, columns: Columns
    ) -> "Described | RejectedPair":
        number_in_file = in_file + 1
        if isinstance(values, str):
            return described_row(BadRow(name, number_in_file, None, values), number, columns, self._limits)
        return described_row(Row(name, number_in_file, None, values), number, columns, self._limits)


def has_embeddings(columns: Sequence[Column]) -> bool:
    """Whether both sides are there as lists of floats."""
    return all(_candidates(columns, side) for side in _SIDES)


def _side(file: ParquetFile, side: str) -> str:
    found = _candidates(file.columns, side)
    if len(found) == 1:
        return found[0]
    seen = ", ".join(f"{printable(column.name, 60)} ({column.type})" for column in file.columns[:50])
    if not found:
        raise UploadRefused(
            "missing_column", f"{file.name} has no column of {side} embeddings; its columns are: {seen}"
        )
    raise UploadRefused("ambiguous_upload", f"{file.name} has several columns of {side} embeddings: {', '.join(found)}")


def _candidates(columns: Sequence[Column], side: str) -> list[str]:
    vectors = [column.name for column in columns if column.vector]
    if side in vectors:
        return [side]
    return [name for name in vectors if name.lower().startswith(_SIDES[side])]
