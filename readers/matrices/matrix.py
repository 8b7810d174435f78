"""A matrix of embeddings that is read from its first row to its last."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from readers.limits import Limits
from readers.refusals import MemberDamaged, UploadRefused

BFLOAT16 = "bfloat16"
_SKIP_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Matrix:
    """`rows` × `width` numbers, row after row, from byte `start` of the stream that `open_stream` returns.

    `dtype` is a numpy float type in either byte order, or "bfloat16", which numpy lacks.
    """

    name: str
    rows: int
    width: int
    dtype: str
    open_stream: Callable[[], IO[bytes]]
    start: int
    offset: int | None = None
    """of the first number in the upload, where it lies there as it is"""

    @property
    def row_bytes(self) -> int:
        return self.width * (2 if self.dtype == BFLOAT16 else np.dtype(self.dtype).itemsize)

    def blocks(self, rows: int, first: int, last: int) -> Iterator[npt.NDArray[np.float32]]:
        """The rows from `first` to just before `last`: (n, width) float32, n = `rows` but for the last block."""
        with closing(self.open_stream()) as stream:
            _skip(stream, self.start + first * self.row_bytes)
            for start in range(first, last, rows):
                count = min(rows, last - start)
                yield self._as_float32(self._read(stream, count * self.row_bytes)).reshape(count, self.width)

    def _read(self, stream: IO[bytes], wanted: int) -> bytes:
        raw = stream.read(wanted)
        if len(raw) < wanted:
            raise MemberDamaged(f"{self.name} ends too early")
        return raw

    def _as_float32(self, raw: bytes) -> npt.NDArray[np.float32]:
        if self.dtype == BFLOAT16:  # the upper half of a float32
            return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 too large becomes inf, and its row is rejected
            return np.frombuffer(raw, self.dtype).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where two matrices stand in the upload as they are: of each the first byte, and the numpy type of its numbers."""

    image: tuple[int, str]
    text: tuple[int, str]


def placement_of(image: Matrix, text: Matrix) -> Placement | None:
    """Where both can be read in place, row by row."""
    if image.offset is None or text.offset is None or BFLOAT16 in (image.dtype, text.dtype):
        return None
    return Placement((image.offset, image.dtype), (text.offset, text.dtype))


def _skip(stream: IO[bytes], count: int) -> None:
    """Go on by `count` bytes, also in a stream that has to be unpacked to get there."""
    if stream.seekable():
        stream.seek(count)
        return
    while count > 0 and (passed := len(stream.read(min(count, _SKIP_CHUNK)))):
        count -= passed


def check_shape(name: str, shape: tuple[int, ...], limits: Limits) -> tuple[int, int]:
    """(N, E) of an array that is a matrix of at least one row and a believable width."""
    if len(shape) != 2:
        raise UploadRefused("embedding_shape", f"{name} has shape {shape}; (N, E) is needed")
    rows, width = shape
    if rows < 1 or not 1 <= width <= limits.max_embedding_width:
        raise UploadRefused(
            "embedding_shape", f"{name} has shape {shape}; N ≥ 1 and 1 ≤ E ≤ {limits.max_embedding_width} are needed"
        )
    if rows > limits.max_rows:
        raise UploadRefused("too_many_rows", f"{name} has {rows} rows; {limits.max_rows} is the most")
    return rows, width
