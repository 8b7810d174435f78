"""Metadata as parquet: a table of names and captions, images elsewhere."""

from collections.abc import Callable, Iterator
from typing import IO, final

from worker.formats.limits import Limits
from worker.formats.parquet_batches import binary_columns, open_parquet, row_batches
from worker.formats.rows import BadRow, Row


@final
class ParquetTable:
    """Columns of bytes are left out and named in `ignored_columns`."""

    def __init__(self, name: str, open_stream: Callable[[], IO[bytes]], limits: Limits) -> None:
        self.name, self._open, self._limits = name, open_stream, limits
        with open_stream() as stream, open_parquet(name, stream, limits) as file:
            self.total: int | None = file.metadata.num_rows
            self.ignored_columns = binary_columns(file.schema_arrow)
            self.columns = tuple(n for n in file.schema_arrow.names if n not in self.ignored_columns)

    def __iter__(self) -> Iterator[Row | BadRow]:
        number = 0
        with self._open() as stream, open_parquet(self.name, stream, self._limits) as file:
            for batch in row_batches(file, list(self.columns), self._limits):
                for values in batch:
                    number += 1
                    if isinstance(values, str):
                        yield BadRow(self.name, number, None, values)
                    else:
                        yield Row(self.name, number, None, values)
