"""Where a specification is wrong, in the words of whoever wrote it.

A field that takes one of several forms fails in each of them, and pydantic puts the name of the form, a class of ours,
into the place. Here the place is walked along what was written, and only the forms that it comes closest to are told.
"""

from collections import defaultdict
from typing import Any

from pydantic import ValidationError

_OTHER_FIELDS = frozenset({"missing", "extra_forbidden"})
_NOT_AN_OBJECT = frozenset({"model_type", "model_attributes_type", "dict_type"})

Place = tuple[str | int, ...]


def located(error: ValidationError, content: Any) -> list[dict[str, Any]]:
    """The errors (loc, msg, type, input as pydantic has them) of content, each with a place that is in it."""
    found: list[tuple[Place, Place, dict[str, Any]]] = []
    strange: dict[Place, dict[Place, int]] = defaultdict(lambda: defaultdict(int))
    for item in error.errors(include_url=False, include_context=False):
        place, form = _walk(content, item["loc"], item["type"] == "missing")
        message = "Input should be an object" if item["type"] in _NOT_AN_OBJECT else item["msg"]
        found.append((place, form, {**item, "loc": place, "msg": message}))
        strange[form[:-1]][form] += item["type"] in _OTHER_FIELDS
    told = [item for _, form, item in found if strange[form[:-1]][form] == min(strange[form[:-1]].values())]
    return list({(item["loc"], item["msg"]): item for item in told}.values())


def _walk(content: Any, loc: Place, missing: bool) -> tuple[Place, Place]:
    """(the place without names of forms, what stands before the first such name and that name; () where none is)."""
    place: list[str | int] = []
    form: Place = ()
    for index, part in enumerate(loc):
        if _holds(content, part):
            content = content[part]
        elif not (missing and index == len(loc) - 1):
            form = form or (*place, part)
            continue
        place.append(part)
    return tuple(place), form


def _holds(content: Any, part: str | int) -> bool:
    if isinstance(content, list):
        return isinstance(part, int) and part < len(content)
    return isinstance(content, dict) and part in content
