"""JSON bodies, read strictly: a name that is given twice, NaN or half a character is an error that says so."""

import json
import math
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.locating import located
from service.problems import MalformedError
from store.errors import InvalidError

Model = TypeVar("Model", bound=BaseModel)


def parse(text: bytes | str, into: type[Model], loc: tuple[str, ...]) -> Model:
    """Read a JSON body, or a part of one.

    Raises:
        MalformedError: it is not JSON.
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
        errors = [{**item, "loc": (*loc, *item["loc"])} for item in located(error, content)]
        raise RequestValidationError(errors) from None


def _no_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is too large")
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
