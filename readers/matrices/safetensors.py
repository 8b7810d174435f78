"""`.safetensors`: 8 bytes of header length, a JSON header, then the tensors' bytes.

The library `safetensors` opens only a whole file by its path and does not say at which byte a tensor lies, while an
upload may hold the file as a member of an archive and its rows are read in place; hence this reader.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from readers.limits import Limits
from readers.matrices.matrix import BFLOAT16, Matrix, check_shape
from readers.printable import printable
from readers.refusals import UploadRefused

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": BFLOAT16}


def safetensors_matrices(
    name: str, size: int, open_stream: Callable[[], IO[bytes]], limits: Limits, at: int | None = None
) -> tuple[Matrix, Matrix]:
    """The tensors `image` and `text` of a file of `size` bytes, which lies at byte `at` of the upload, if it does."""
    with open_stream() as stream:
        header, data_start = _header(name, size, stream, limits)
    image, text = (_matrix(name, tensor, header, data_start, size, open_stream, limits) for tensor in ("image", "text"))
    if at is not None:
        image, text = (replace(matrix, offset=at + matrix.start) for matrix in (image, text))
    return image, text


def _header(name: str, size: int, stream: IO[bytes], limits: Limits) -> tuple[dict[str, object], int]:
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(limits.max_header_bytes, size - 8):
        raise _damaged(name, f"its header announces {length} bytes")
    try:
        header = json.loads(stream.read(length))
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(name, "its header is not a JSON object")
    return header, 8 + length


def _matrix(
    name: str,
    tensor: str,
    header: dict[str, object],
    data_start: int,
    size: int,
    open_stream: Callable[[], IO[bytes]],
    limits: Limits,
) -> Matrix:
    entry = header.get(tensor)
    if entry is None:
        seen = ", ".join(printable(key, 60) for key in list(header)[:50] if key != "__metadata__") or "none"
        raise UploadRefused("missing_tensor", f"{name} has no tensor {tensor}; its tensors are: {seen}")
    dtype, shape, begin, end = _entry(name, tensor, entry)
    if dtype not in _DTYPES:
        raise UploadRefused(
            "embedding_dtype", f"tensor {tensor} of {name} has dtype {dtype}; {', '.join(_DTYPES)} are read"
        )
    rows, width = check_shape(f"tensor {tensor} of {name}", shape, limits)
    matrix = Matrix(f"tensor {tensor} of {name}", rows, width, _DTYPES[dtype], open_stream, data_start + begin)
    if end - begin != rows * matrix.row_bytes or data_start + end > size:
        raise UploadRefused(
            "embedding_shape", f"tensor {tensor} of {name} has shape {shape} and dtype {dtype}, but other bytes"
        )
    return matrix


def _entry(name: str, tensor: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    if isinstance(entry, dict):
        dtype, shape, offsets = entry.get("dtype"), _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
        if isinstance(dtype, str) and shape is not None and offsets is not None and len(offsets) == 2:
            return printable(dtype, 20), shape, offsets[0], offsets[1]
    raise _damaged(name, f"the entry of tensor {tensor} is broken")


def _counts(value: object) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(number) is int and number >= 0 for number in value):
        return tuple(value)
    return None


def _damaged(name: str, why: str) -> UploadRefused:
    return UploadRefused("unreadable_archive", f"{name} is not a readable safetensors file: {why}")
