"""`.npy`: the header is checked against the size of the file before anything is allocated for it.

The layout is numpy's NEP 1. Its own `numpy.lib.format` reads a header of any announced length before looking at it, and
lets a hostile one end in exceptions and warnings of the tokenizer.
"""

import ast
from collections.abc import Callable
from contextlib import closing
from typing import IO

import numpy as np

from readers.limits import Limits
from readers.matrices.matrix import Matrix, check_shape
from readers.refusals import UploadRefused

_LONGEST_HEADER = 10_000
_LENGTH_BYTES = {b"\1\0": 2, b"\2\0": 4}
_FLOATS = frozenset(np.dtype(order + kind).str for order in "<>" for kind in ("f2", "f4", "f8"))


def npy_matrix(
    name: str, size: int, open_stream: Callable[[], IO[bytes]], limits: Limits, at: int | None = None
) -> Matrix:
    """The matrix in a member of `size` bytes, which lies at byte `at` of the upload if it lies there as it is."""
    with closing(open_stream()) as stream:
        header, start = _header(name, stream)
    dtype, by_column, shape = (header.get(field) for field in ("descr", "fortran_order", "shape"))
    if isinstance(dtype, str) and "O" in dtype:
        raise UploadRefused("pickle_refused", f"{name} holds pickled objects, which can run code; save floats")
    if not isinstance(dtype, str) or dtype not in _FLOATS:
        raise UploadRefused("embedding_dtype", f"{name} has dtype {dtype}; float16, float32 and float64 are read")
    if not isinstance(shape, tuple) or not all(type(count) is int for count in shape):
        raise _damaged(name, "it has no shape")
    rows, width = check_shape(name, shape, limits)
    if by_column and min(rows, width) > 1:
        raise UploadRefused(
            "embedding_shape", f"{name} is stored column by column; save numpy.ascontiguousarray(…) of it"
        )
    if rows * width * np.dtype(dtype).itemsize != size - start:
        raise UploadRefused(
            "embedding_shape", f"{name} has shape {shape} and dtype {dtype}, but {size - start} bytes of numbers"
        )
    return Matrix(name, rows, width, dtype, open_stream, start, None if at is None else at + start)


def _header(name: str, stream: IO[bytes]) -> tuple[dict[object, object], int]:
    """The header, and the byte at which the numbers begin."""
    magic, version = stream.read(6), stream.read(2)
    if magic != b"\x93NUMPY" or version not in _LENGTH_BYTES:
        raise _damaged(name, "it does not begin as one of version 1.0 or 2.0 does")
    length = int.from_bytes(stream.read(_LENGTH_BYTES[version]), "little")
    if length > _LONGEST_HEADER:
        raise _damaged(name, f"its header announces {length} bytes")
    try:
        header = ast.literal_eval(stream.read(length).decode("latin-1"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise _damaged(name, f"its header is not one that numpy writes ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise _damaged(name, "its header is not one that numpy writes")
    return header, 8 + _LENGTH_BYTES[version] + length


def _damaged(name: str, why: str) -> UploadRefused:
    return UploadRefused("unreadable_archive", f"{name} is not a readable .npy: {why}")
