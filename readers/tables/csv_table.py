"""Metadata as CSV or TSV: one row at a time, each row of bounded length."""

import csv
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import IO, final

from readers.limits import Limits
from readers.printable import flaw
from readers.refusals import UploadRefused
from readers.tables.rows import BadRow, BoundedLines, Row, RowTooLongError


@final
class CsvTable:
    """Comma-separated, or tab-separated when its header has tabs and no comma. Quotes are read strictly."""

    ignored_columns: tuple[str, ...] = ()
    total: int | None = None

    def __init__(self, name: str, open_stream: Callable[[], IO[bytes]], limits: Limits) -> None:
        self.name, self._open, self._limits = name, open_stream, limits
        header = self._header_line()
        self._delimiter = "\t" if "\t" in header and ("," not in header or name.lower().endswith(".tsv")) else ","
        self.columns = self._columns(header)

    def __iter__(self) -> Iterator[Row | BadRow]:
        with closing(BoundedLines(self._open(), self._limits.max_line_bytes, self.name)) as lines:
            next(lines)
            rows = csv.reader(lines, delimiter=self._delimiter, strict=True)
            number = 0
            while True:
                lines.start_row()
                line = lines.number + 1
                try:
                    fields = next(rows)
                except StopIteration:
                    return
                except RowTooLongError:
                    number += 1
                    longest = self._limits.max_line_bytes
                    reason = f"longer than {longest} characters; is a quote left open?"
                    yield BadRow(self.name, number, line, reason, count_lost=lines.number > line)
                    continue
                except csv.Error as error:
                    number += 1
                    yield BadRow(self.name, number, line, str(error), count_lost=lines.number > line)
                    continue
                if not fields:
                    continue
                number += 1
                if len(fields) == len(self.columns):
                    yield Row(self.name, number, line, dict(zip(self.columns, fields, strict=True)))
                else:
                    reason = f"{len(fields)} fields where the header names {len(self.columns)}"
                    yield BadRow(self.name, number, line, reason)

    def _header_line(self) -> str:
        with closing(BoundedLines(self._open(), self._limits.max_line_bytes, self.name)) as lines:
            try:
                return next(lines, "")
            except RowTooLongError:
                raise UploadRefused("unreadable_table", f"the first line of {self.name} is too long") from None

    def _columns(self, header: str) -> tuple[str, ...]:
        if unfit := flaw(header):
            raise UploadRefused("unreadable_table", f"the header of {self.name} holds {unfit}; save it as UTF-8")
        try:
            fields = next(csv.reader([header], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise UploadRefused("unreadable_table", f"the header of {self.name}: {error}") from error
        if not fields:
            raise UploadRefused("unreadable_table", f"{self.name} does not begin with a header")
        # pandas writes its index under an empty name and reads it back under this one.
        return tuple(field.strip() or f"Unnamed: {at}" for at, field in enumerate(fields))
