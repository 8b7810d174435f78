"""One large JSON document as a stream of the objects in one of its lists.

ijson names every value by its whole path, so a document nested without end would take memory by the square of its
depth; here it is refused first.
"""

from collections.abc import Iterator
from typing import IO, Any

import ijson

from readers.refusals import UploadRefused

_NOT_JSON = (ijson.JSONError, ValueError, OverflowError)


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
