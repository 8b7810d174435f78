"""Checkpoints as safetensors: what the header of one says, and that its bytes are all there. Nothing is loaded.

The form: 8 bytes of header length, a JSON header, then the tensors' bytes, in any order but without a gap. Whether the
numbers are finite, and fit the architecture, is found out by whoever loads them.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from store.catalogue import check_architecture
from store.errors import InvalidError

CONFIG_KEY = "open_clip_config"
"""Of the header's metadata: the `open_clip_config.json` of these weights, as text. Checkpoints made here have it."""

_MOST_HEADER_BYTES = 4 * 1024 * 1024  # a model of 5,000 million parameters has 0.3
_MOST_DIMENSIONS = 8
_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The shape of every tensor, and what the file says of itself."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a whole file, every entry of it checked.

    Raises:
        InvalidError: it is no safetensors file, holds no tensor, or its tensors are not exactly its bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _refused("it is no safetensors file, or was cut short: send weights as .safetensors")
        if length > _MOST_HEADER_BYTES:
            raise _refused(f"its header announces {length:,} bytes; at most {_MOST_HEADER_BYTES:,} are read")
        content = _parsed(file, length)
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused("its `__metadata__` does not map names to texts")
    if not content:
        raise _refused("it holds no tensor")
    entries = {name: _entry(name, entry) for name, entry in content.items()}
    expected = 0
    for begin, end in sorted((begin, end) for _, begin, end in entries.values()):
        if begin != expected:
            raise _refused("its tensors overlap, or leave bytes between them")
        expected = end
    if expected != size - 8 - length:
        raise _refused(f"its tensors take {expected:,} bytes, and {size - 8 - length:,} follow the header")
    return Header({name: shape for name, (shape, _, _) in entries.items()}, metadata)


def architecture_of(path: Path, given: str | dict[str, Any] | None) -> str | dict[str, Any]:
    """The architecture of a checkpoint: the one given, or else the one that the file itself names.

    Raises:
        InvalidError: the file is no checkpoint, or nobody says what its architecture is.
    """
    config = config_of(read_header(path))
    if given is not None:
        return given
    if config is None:
        raise InvalidError("missing_field", "the checkpoint does not say what its architecture is", "architecture")
    check_architecture(config, "architecture")
    return config


def config_of(header: Header) -> dict[str, Any] | None:
    """The open_clip configuration that a checkpoint carries, unchecked; `None` where it carries none.

    Raises:
        InvalidError: it carries something else under that name.
    """
    text = header.metadata.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise _refused(f"its metadata {CONFIG_KEY!r} is no JSON object")
    return config


def _parsed(file: IO[bytes], length: int) -> dict[str, Any]:
    try:
        content = json.loads(file.read(length), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise _refused(f"its header is not JSON: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise _refused("its header is not a JSON object")
    return content


def _no_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(members)
    if len(unique) < len(members):
        raise ValueError("a name is given twice")
    return unique


def _entry(name: str, entry: Any) -> tuple[tuple[int, ...], int, int]:
    """(shape, first byte, byte after the last), of the bytes after the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refused(f"the entry of tensor {name[:100]!r} is broken")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or len(shape) > _MOST_DIMENSIONS:
        raise _refused(f"the entry of tensor {name[:100]!r} is broken")
    item = _ITEM_BYTES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if item is None:
        kinds = ", ".join(_ITEM_BYTES)
        raise _refused(f"tensor {name[:100]!r} holds {str(entry['dtype'])[:20]}; weights are {kinds}")
    begin, end = offsets
    if end - begin != math.prod(shape) * item:
        raise _refused(f"tensor {name[:100]!r} has shape {shape} and {end - begin:,} bytes, which do not agree")
    return tuple(shape), begin, end


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**48 for number in value)


def _refused(why: str) -> InvalidError:
    return InvalidError("invalid_checkpoint", f"the checkpoint cannot be used: {why}", "file")
