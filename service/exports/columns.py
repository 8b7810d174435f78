"""The columns of an export: those of a result, then everything else that came in, each under a name of its own."""

import json
from collections.abc import Collection, Iterable
from typing import Any

from store.exports import Exported
from store.tables import SCORES

RESULT_COLUMNS = ("rank", "query", "key", "caption", *SCORES, "flagged")
"""In this order; `open_clip` calls the caption `title`."""

_PREFIX = "input_"


def own_names(names: Iterable[str], taken: Collection[str] = RESULT_COLUMNS) -> dict[str, str]:
    """The columns that the other columns of a pair go into: a name that a result has too gets `input_` before it."""
    names = sorted(names)
    used = {*names, *taken}
    found = {}
    for name in names:
        own = name
        if name in taken:
            while own in used:
                own = _PREFIX + own
            used.add(own)
        found[name] = own
    return found


def extra_of(row: Exported) -> dict[str, Any]:
    """The other columns of one pair."""
    return json.loads(row.extra) if row.extra else {}


def as_object(row: Exported) -> dict[str, Any]:
    """All columns of one pair by their names."""
    values = {name: getattr(row, name) for name in RESULT_COLUMNS}
    extra = extra_of(row)
    names = own_names(extra)
    return values | {names[name]: value for name, value in extra.items()}


def cell(value: Any) -> Any:
    """A value as a table of text can hold it: lists and objects as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value
