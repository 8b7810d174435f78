"""JSON columns as listings show them: the large parts replaced in the database, so that a page stays small on its way.

A part that takes more than `LARGEST` bytes stands as `{"abridged": true, "bytes": n}`, with n about what is left out.
Whoever wants it asks for the one thing that it belongs to.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, Text, case, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute

LARGEST: Final = 1000


def abridged(column: InstrumentedAttribute[Any], *paths: Sequence[str]) -> ColumnElement[Any]:
    """The column with what stands at each of these paths abridged where it is large; an empty path is the whole."""
    shown: ColumnElement[Any] = column.expression
    for path in paths:
        at = cast(list(path), ARRAY(Text))
        part = column.op("#>", return_type=JSONB())(at)
        size = func.pg_column_size(part)  # of what was taken out, so of no compressed form
        note = func.jsonb_build_object("abridged", True, "bytes", size, type_=JSONB)
        # jsonb_set takes no null: what is not there is not written, whatever its value.
        short = case((size > LARGEST, note), else_=func.coalesce(part, cast(literal("null"), JSONB)))
        shown = (
            func.jsonb_set(shown, at, short, False, type_=JSONB) if path else case((size > LARGEST, note), else_=part)
        )
    return shown


def without(column: InstrumentedAttribute[Any], *names: str) -> ColumnElement[Any]:
    """The object in this column without these members."""
    return column.op("-", return_type=JSONB())(cast(list(names), ARRAY(Text)))
