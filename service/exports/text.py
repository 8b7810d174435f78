"""Exports as text: CSV that is safe to open in a spreadsheet, and JSON lines that are exact."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from service.exports.source import RESULT_COLUMNS, Source, as_object, cell, extra_of, own_names

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Linear: no two repetitions can share digits. ASCII only: a spreadsheet reads no other digits as a number.
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def safe(value: Any) -> Any:
    """A cell that a spreadsheet takes for text, by an apostrophe before it, where it would take it for a formula.

    Numbers stay numbers, those that came as text too: `-3.5` is no formula. (OWASP, CSV Injection.)
    """
    text = cell(value)
    if isinstance(text, str) and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def csv_chunks(source: Source) -> Iterator[str]:
    """RFC 4180 in UTF-8, with a header. What is not there is an empty cell."""
    names = own_names(source.extra_names())

    def chunks() -> Iterator[str]:
        out = io.StringIO(newline="")
        rows = csv.writer(out)
        rows.writerow([*RESULT_COLUMNS, *map(safe, names.values())])
        for piece in source.pieces():
            for row in piece:
                extra = extra_of(row)
                fixed = [safe(getattr(row, name)) for name in RESULT_COLUMNS]
                rows.writerow([*fixed, *(safe(extra.get(name)) for name in names)])
            yield _taken(out)
        yield _taken(out)  # the header, where there is no row

    return chunks()


def jsonl_chunks(source: Source) -> Iterator[str]:
    """One object a line, every value as it came."""
    for piece in source.pieces():
        yield "".join(json.dumps(as_object(row), ensure_ascii=False, allow_nan=False) + "\n" for row in piece)


def _taken(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text
