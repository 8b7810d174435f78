"""JSON that a stranger wrote: lines of one object each, one object, and one large document as a stream.

ijson names every value by its whole path, so a document nested without end would take memory by the square of its
depth; here it is refused first.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import IO, Any, final

import ijson

from readers.limits import Limits
from readers.refusals import PairRefused, Rejection, UploadRefused
from readers.tables.rows import BadRow, BoundedLines, Row, RowTooLongError

_ROWS_LOOKED_AT = 100
_NOT_JSON = (ijson.JSONError, ValueError, OverflowError)


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
    fields = dict(items)
    if len(fields) < len(items):
        repeated = Counter(name for name, _ in items).most_common(1)[0][0]
        raise _unreadable(f"{repeated!r} is given twice")
    return fields


def _unreadable(why: str) -> PairRefused:
    return PairRefused(why, Rejection.UNREADABLE_ROW)


def list_of_objects(stream: IO[bytes], field: str, name: str, depth: int) -> Iterator[dict[str, Any]]:
    """The objects in the list `field` of the document, in order; none where there is no such list.

    Raises:
        UploadRefused: it is not JSON, holds something else in that list, or is nested deeper than `depth`.
    """
    try:
        for item in ijson.items(
            ijson.parse(_shallow(ijson.basic_parse(stream, use_float=True), depth)), f"{field}.item"
        ):
            if not isinstance(item, dict):
                raise UploadRefused("unreadable_table", f"{name}: {field} holds what is no object")
            yield item
    except _NOT_JSON as error:
        raise UploadRefused("unreadable_table", f"{name} is not JSON: {error}") from error


def begins_with(head: bytes, names: set[tuple[str, str]], depth: int) -> bool:
    """Whether in the beginning of a document a list (first) has objects with a field (second) of one of these names."""
    try:
        return any(
            kind == "map_key" and (prefix.removesuffix(".item"), value) in names
            for prefix, kind, value in ijson.parse(_shallow(ijson.basic_parse(head), depth))
        )
    except _NOT_JSON:
        return False


def _shallow(events: Iterator[tuple[str, Any]], most: int) -> Iterator[tuple[str, Any]]:
    depth = 0
    for kind, value in events:
        if kind in ("start_map", "start_array"):
            depth += 1
            if depth > most:
                raise ValueError("nested too deep")
        elif kind in ("end_map", "end_array"):
            depth -= 1
        yield kind, value
