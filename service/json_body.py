"""JSON bodies, read strictly: a name that is given twice, NaN or half a character is an error that says so, and errors
are located in the words of whoever wrote the body."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.errors import MalformedError, nearest
from store.errors import InvalidError

Model = TypeVar("Model", bound=BaseModel)

_MOST_MEMBERS = 1000
"""Of one object: no body that is read here needs a tenth of it, and each unknown member is an error of its own."""

_MOST_HINTS = 10
"""Errors of one body that come with the nearest field: each is compared with all."""

_LONGEST_QUOTE = 200  # characters of what was sent, in a message about it


def parse(text: bytes | str, into: type[Model], loc: tuple[str, ...]) -> Model:
    """Read a JSON body, or a part of one. Call it off the event loop: a body of a mebibyte takes tenths of a second.

    Raises:
        MalformedError: it is not JSON, or an object of it has too many members.
        InvalidError: it holds text that cannot be kept.
        RequestValidationError: a field is unknown, missing or out of bounds; each is named.
    """
    part = loc[-1] if len(loc) > 1 else None
    try:
        content = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise MalformedError("malformed_json", f"not JSON: {error}", part) from None
    if not _storable(content):
        raise InvalidError("unstorable_text", "the body holds a NUL or half a surrogate pair", part)
    try:
        return into.model_validate(content)
    except ValidationError as error:
        errors = [
            {**item, "loc": (*loc, *item["loc"]), "msg": _in_words(item, into, number < _MOST_HINTS)}
            for number, item in enumerate(located(error, content))
        ]
        raise RequestValidationError(errors) from None


def _in_words(item: dict[str, Any], into: type[BaseModel], hint: bool) -> str:
    """A message in the words of whoever wrote the body; a field that there is not is told with the nearest one."""
    if item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        if not hint:
            return "there is no such field"
        *place, name = item["loc"]
        known = {field for model in models_at(into, place) for field in model.model_fields}
        return f"there is no such field{nearest(str(name), known)}"
    return str(item["msg"])


def models_at(model: type[BaseModel], place: Iterable[str | int]) -> list[type[BaseModel]]:
    """What may stand at a place of a body that is read as `model`."""
    here = [model]
    for part in place:
        fields = [one.model_fields[part] for one in here if isinstance(part, str) and part in one.model_fields]
        here = [within for field in fields for within in _models_in(field.annotation)]
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _no_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"an object has {len(members):,} members; at most {_MOST_MEMBERS:,} are read")
    content: dict[str, Any] = {}
    for name, value in members:
        if name in content:
            raise ValueError(f"{_quoted(name)} is given twice")
        content[name] = value
    return content


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…")


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{_quoted(number)} is too large")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _storable(value: Any) -> bool:
    """Whether PostgreSQL can keep it: no NUL and no lone surrogate in any text."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_OTHER_FIELDS = frozenset({"missing", "extra_forbidden"})
_NOT_AN_OBJECT = frozenset({"model_type", "model_attributes_type", "dict_type"})

Place = tuple[str | int, ...]


def located(error: ValidationError, content: Any) -> list[dict[str, Any]]:
    """The errors (loc, msg, type, input as pydantic has them) of content, each with a place that is in it."""
    errors: list[tuple[Place, Place, dict[str, Any]]] = []
    strange: dict[Place, dict[Place, int]] = defaultdict(lambda: defaultdict(int))
    for item in error.errors(include_url=False, include_context=False):
        place, form = _walk(content, item["loc"], item["type"] == "missing")
        message = "Input should be an object" if item["type"] in _NOT_AN_OBJECT else item["msg"]
        errors.append((place, form, {**item, "loc": place, "msg": message}))
        strange[form[:-1]][form] += item["type"] in _OTHER_FIELDS
    closest = [item for _, form, item in errors if strange[form[:-1]][form] == min(strange[form[:-1]].values())]
    return list({(item["loc"], item["msg"]): item for item in closest}.values())


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
