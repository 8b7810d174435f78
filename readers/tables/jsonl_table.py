"""Metadata as JSON lines: one object a line, each line of bounded length."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import IO, final

from readers.limits import Limits
from readers.refusals import PairRefused, Rejection
from readers.tables.bounded_lines import BoundedLines, RowTooLongError
from readers.tables.rows import BadRow, Row

_ROWS_LOOKED_AT = 100


@final
class JsonlTable:
    """`columns` are those of the first hundred rows; a row need not have them all."""

    ignored_columns: tuple[str, ...] = ()
    total: int | None = None

    def __init__(self, name: str, open_stream: Callable[[], IO[bytes]], limits: Limits) -> None:
        self.name, self._open, self._limits = name, open_stream, limits
        first = islice(self, _ROWS_LOOKED_AT)
        self.columns = tuple(dict.fromkeys(column for row in first if isinstance(row, Row) for column in row.values))

    def __iter__(self) -> Iterator[Row | BadRow]:
        with closing(BoundedLines(self._open(), self._limits.max_line_bytes, self.name)) as lines:
            number = 0
            while True:
                lines.start_row()
                line = lines.number + 1
                try:
                    text = next(lines)
                    if not text.strip():
                        continue
                    number += 1
                    yield Row(self.name, number, line, json_object(text))
                except StopIteration:
                    return
                except RowTooLongError:
                    number += 1
                    yield BadRow(self.name, number, line, f"longer than {self._limits.max_line_bytes} characters")
                except PairRefused as error:
                    yield BadRow(self.name, number, line, str(error))


def json_object(text: str | bytes) -> dict[str, object]:
    """A JSON object that says everything once.

    Raises:
        PairRefused: it is not JSON, not an object, holds NaN or an infinity, or repeats a name.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise _unreadable("nested too deep") from None
    except json.JSONDecodeError as error:
        raise _unreadable(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise _unreadable(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _unreadable("not a JSON object")
    return value


def _no_constant(name: str) -> None:
    raise _unreadable(f"{name} is not JSON")


def _without_repeats(items: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(items)
    if len(found) < len(items):
        repeated = Counter(name for name, _ in items).most_common(1)[0][0]
        raise _unreadable(f"{repeated!r} is given twice")
    return found


def _unreadable(why: str) -> PairRefused:
    return PairRefused(why, Rejection.UNREADABLE_ROW)
