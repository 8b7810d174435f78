"""Parquet, read by a process of its own: what is in a file, its rows, and the columns of embeddings among them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from readers.archives.member_bytes import Extent
from readers.limits import Limits
from readers.refusals import UploadRefused
from readers.sandbox.child import AnswerTooLargeError, Child, ChildBrokenError, ChildLimits, ChildTooSlowError
from readers.tables.parquet_child import Request
from readers.tables.rows import BadRow, Row

_PROGRAM = "readers.tables.parquet_child"
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
    """`values` are JSON; a row that could not be read is the reason instead. `size` is that of its image."""

    values: dict[str, object] | str
    image: bytes
    path: str | None
    size: int | None


def described(name: str, extent: Extent, limits: Limits) -> tuple[int, list[Column]]:
    """How many rows there are, and of what."""
    request = Request(name, extent.file.fileno(), extent.start, extent.length, asdict(limits))
    ((about, _),) = _answers(request, limits)
    return about["rows"], [Column(*column) for column in about["columns"]]


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
        for about, blob in _answers(request, limits):
            both = np.frombuffer(blob, np.float32).reshape(2, len(about["rows"]), -1)
            yield VectorFrame(
                about["rows"], {int(row): why for row, why in about["bad"].items()}, about["width"], both[0], both[1]
            )


def parquet_rows(
    name: str, extent: Extent, limits: Limits, columns: list[str], image: str | None = None
) -> Iterator[ParquetRow]:
    """The rows in order, with these columns; the `image` column comes apart from the others."""
    request = Request(name, extent.file.fileno(), extent.start, extent.length, asdict(limits), columns, image)
    for rows, blob in _answers(request, limits):
        at = 0
        for values, path, size in rows:
            length = size if size is not None and size <= limits.max_member_bytes else 0
            yield ParquetRow(values, blob[at : at + length], path, size)
            at += length


@final
class ParquetTable:
    """Metadata as parquet: a table of names and captions, images elsewhere.

    Columns of bytes are left out and named in `ignored_columns`.
    """

    def __init__(self, name: str, locate: Callable[[], Extent], limits: Limits) -> None:
        self.name, self._locate, self._limits = name, locate, limits
        with locate() as extent:
            rows, columns = described(name, extent, limits)
        self.total: int | None = rows
        self.ignored_columns = tuple(column.name for column in columns if column.holds_bytes)
        self.columns = tuple(column.name for column in columns if not column.holds_bytes)

    def __iter__(self) -> Iterator[Row | BadRow]:
        with self._locate() as extent:
            rows = parquet_rows(self.name, extent, self._limits, list(self.columns))
            for number, row in enumerate(rows, start=1):
                if isinstance(row.values, str):
                    yield BadRow(self.name, number, None, row.values)
                else:
                    yield Row(self.name, number, None, row.values)


def _answers(request: Request, limits: Limits) -> Iterator[tuple[Any, bytes]]:
    name = request.name
    allowed = ChildLimits(limits.parquet_memory_bytes, limits.parquet_seconds, _LONGEST_FRAME)
    try:
        with closing(Child(_PROGRAM, allowed, request.fd)) as child:
            for about, content in child.ask(asdict(request)):
                if isinstance(about, dict) and "refused" in about:
                    raise UploadRefused(*about["refused"])
                yield about, content
    except ChildTooSlowError:
        raise UploadRefused(
            "unreadable_archive", f"{name} took more than {limits.parquet_seconds} seconds to read"
        ) from None
    except AnswerTooLargeError:
        raise UploadRefused("too_large", f"a row of {name} is too large") from None
    except ChildBrokenError:
        raise UploadRefused(
            "unreadable_archive",
            f"unreadable archive: the parquet reader broke down over {name}, or needed more than "
            f"{limits.parquet_memory_bytes} bytes of memory",
        ) from None
