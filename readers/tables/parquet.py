"""Rows of a parquet file, out of the process that reads it."""

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from readers.archives.byte_range import Extent
from readers.limits import Limits
from readers.refusals import UploadRefused
from readers.sandbox.confinement import confined_environment, warn_of_missing
from readers.tables.parquet_child import Request
from readers.tables.parquet_frames import FRAME

_PROGRAM = "import sys; from readers.tables.parquet_child import answer; answer(sys.stdin.buffer, sys.stdout.buffer)"
_LONGEST_FRAME = 256 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """`image` says how a column may hold images: as a struct of bytes and path, as plain bytes, or not at all."""

    name: str
    type: str
    holds_bytes: bool
    image: str | None
    vector: bool


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file whose footer was read."""

    name: str
    locate: Callable[[], Extent]
    rows: int
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class VectorFrame:
    """Some rows with embeddings: `rows` as `ParquetRow.values`; image, text: (n, width) float32; `bad` says of which
    rows of these the embeddings are no good, and why.
    """

    rows: list[dict[str, object] | str]
    bad: dict[int, str]
    width: int | None
    image: npt.NDArray[np.float32]
    text: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """`values` are JSON; a row that could not be read is the reason instead. `size` is that of an image found."""

    values: dict[str, object] | str
    image: bytes
    path: str | None
    size: int | None


def described(name: str, extent: Extent, limits: Limits) -> tuple[int, list[Column]]:
    """How many rows there are, and of what."""
    request = Request(name, extent.file.fileno(), extent.start, extent.length, asdict(limits))
    ((found, _),) = _frames(request, limits)
    return found["rows"], [Column(*column) for column in found["columns"]]


def parquet_file(name: str, locate: Callable[[], Extent], limits: Limits) -> ParquetFile:
    """A file and what is in it."""
    with locate() as extent:
        return ParquetFile(name, locate, *described(name, extent, limits))


def parquet_vectors(
    file: ParquetFile, limits: Limits, columns: list[str], vectors: list[str], width: int | None
) -> Iterator[VectorFrame]:
    """All rows in order, the columns `vectors` as matrices of `width`, or of the first embedding's width."""
    with file.locate() as extent:
        request = Request(
            file.name, extent.file.fileno(), extent.start, extent.length, asdict(limits), columns, None, vectors, width
        )
        for about, blob in _frames(request, limits):
            both = np.frombuffer(blob, np.float32).reshape(2, len(about["rows"]), -1)
            yield VectorFrame(
                about["rows"], {int(row): why for row, why in about["bad"].items()}, about["width"], both[0], both[1]
            )


def parquet_rows(
    name: str, extent: Extent, limits: Limits, columns: list[str], image: str | None = None
) -> Iterator[ParquetRow]:
    """The rows in order, with these columns; the `image` column comes apart from the others."""
    request = Request(name, extent.file.fileno(), extent.start, extent.length, asdict(limits), columns, image)
    for rows, blob in _frames(request, limits):
        at = 0
        for values, path, size in rows:
            length = size if size is not None and size <= limits.max_member_bytes else 0
            yield ParquetRow(values, blob[at : at + length], path, size)
            at += length


def _frames(request: Request, limits: Limits) -> Iterator[tuple[Any, bytes]]:
    process = subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(request.fd,),
        env={**confined_environment(), "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    with process:
        try:
            if process.stdin is not None:
                with suppress(BrokenPipeError), process.stdin as asking:
                    asking.write(request.as_json())
            if (missing := _frame(process.stdout, request.name, limits)) is not None:
                warn_of_missing(*missing[0])
            while (frame := _frame(process.stdout, request.name, limits)) is not None:
                yield frame
        finally:
            process.kill()


def _frame(out: IO[bytes] | None, name: str, limits: Limits) -> tuple[Any, bytes] | None:
    """The next frame, or None for the last."""
    if out is None or not select.select([out], [], [], limits.parquet_seconds)[0]:
        raise UploadRefused("unreadable_archive", f"{name} took more than {limits.parquet_seconds} seconds to read")
    head = out.read(FRAME.size)
    text_length, blob_length = FRAME.unpack(head) if len(head) == FRAME.size else (0, 0)
    if text_length + blob_length > _LONGEST_FRAME:
        raise UploadRefused("too_large", f"a row of {name} is too large")
    text, blob = out.read(text_length), out.read(blob_length)
    if not text or len(text) < text_length or len(blob) < blob_length:
        raise UploadRefused(
            "unreadable_archive",
            f"unreadable archive: the parquet reader broke down over {name}, or needed more than "
            f"{limits.parquet_memory_bytes} bytes of memory",
        )
    found = json.loads(text)
    if isinstance(found, dict) and "refused" in found:
        raise UploadRefused(*found["refused"])
    return None if found is None else (found, blob)
