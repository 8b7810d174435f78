"""Rows of a table of metadata, whatever it is written in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


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
