"""Rows of a table of metadata, whatever it is written in, and the bounded lines of text that they are read from."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Protocol, Self

from readers.refusals import UploadRefused

_SKIP_CHUNK = 64 * 1024
_LINE_ENDS = ("\n", "\r")


@dataclass(frozen=True, slots=True)
class Row:
    """A row and where it stands: `number` counts rows from 1, `line` lines where the table is text."""

    table: str
    number: int
    line: int | None
    values: Mapping[str, object]

    @property
    def place(self) -> str:
        return place(self.table, self.number, self.line)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read. After one that spans several lines, rows can no longer be counted."""

    table: str
    number: int
    line: int | None
    reason: str
    count_lost: bool = False

    @property
    def place(self) -> str:
        return place(self.table, self.number, self.line)


class Table(Protocol):
    """A table that can be read from its beginning any number of times."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        """Columns whose values are bytes, which are not in the rows."""

    @property
    def total(self) -> int | None: ...

    def __iter__(self) -> Iterator[Row | BadRow]: ...


def place(table: str, number: int, line: int | None) -> str:
    """How a row is named to people."""
    return f"row {number} of {table}" + (f", line {line}" if line is not None else "")


class RowTooLongError(Exception):
    """A row went on for longer than a row may; the rest of its line has been skipped."""


class BoundedLines:
    """An iterator over lines, ends included, for rows of at most `most` characters.

    A class and not a generator: after `RowTooLongError` it goes on with the line that follows.
    """

    def __init__(self, stream: IO[bytes], most: int, name: str) -> None:
        self._text = _decoded(stream, name)
        self._most = self._left = most
        self.number = 0
        """lines given out or skipped so far"""

    def start_row(self) -> None:
        """What follows belongs to a new row."""
        self._left = self._most

    def close(self) -> None:
        self._text.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) <= self._left:
            self._left -= len(line)
            return line
        while line and not line.endswith(_LINE_ENDS):
            line = self._text.readline(_SKIP_CHUNK)
        raise RowTooLongError


def _decoded(stream: IO[bytes], name: str) -> io.TextIOWrapper:
    """UTF-8 unless a byte-order mark says UTF-16. What does not decode stays in the text as lone surrogates."""
    buffered = io.BufferedReader(stream)  # type: ignore[type-var]
    mark = buffered.peek(4)[:4]
    if mark in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise UploadRefused("unreadable_table", f"{name} is in UTF-32; save it as UTF-8")
    if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return io.TextIOWrapper(buffered, "utf-16", "surrogatepass", newline="")
    return io.TextIOWrapper(buffered, "utf-8-sig", "surrogateescape", newline="")
