"""Metadata as parquet: a table of names and captions, images elsewhere."""

from collections.abc import Callable, Iterator
from typing import final

from readers.archives.byte_range import Extent
from readers.limits import Limits
from readers.tables.parquet import described, parquet_rows
from readers.tables.rows import BadRow, Row


@final
class ParquetTable:
    """Columns of bytes are left out and named in `ignored_columns`."""

    def __init__(self, name: str, locate: Callable[[], Extent], limits: Limits) -> None:
        self.name, self._locate, self._limits = name, locate, limits
        with locate() as extent:
            rows, columns = described(name, extent, limits)
        self.total: int | None = rows
        self.ignored_columns = tuple(column.name for column in columns if column.holds_bytes)
        self.columns = tuple(column.name for column in columns if not column.holds_bytes)

    def __iter__(self) -> Iterator[Row | BadRow]:
        with self._locate() as extent:
            rows = parquet_rows(self.name, extent, self._limits, list(self.columns))
            for number, row in enumerate(rows, start=1):
                if isinstance(row.values, str):
                    yield BadRow(self.name, number, None, row.values)
                else:
                    yield Row(self.name, number, None, row.values)
