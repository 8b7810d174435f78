"""Pairs that were embedded before they came: two matrices, row for row, and perhaps a table beside them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import IO, cast, final

import numpy as np
import numpy.typing as npt

from readers.archives.archive import Archive
from readers.archives.member_bytes import ByteRange, Spent
from readers.formats.definition import Contents, DatasetFormat, only, some
from readers.limits import Limits
from readers.matrices.matrix import Matrix, Placement, placement_of
from readers.matrices.npy import npy_matrix
from readers.matrices.safetensors import safetensors_matrices
from readers.pair_fields import caption_from, extra_from, key_from, shown
from readers.pairs import EmbeddingBlock, Item, Json, RejectedPair
from readers.refusals import PairRefused, Rejection, UploadRefused
from readers.tables.metadata import Columns, embedding_columns, open_table
from readers.tables.rows import BadRow, Row, Table

Described = tuple[str, str | None, dict[str, Json]]


@final
class Embeddings:
    """Blocks in row order, the rejected rows of each before it. Rows count from 0, as the keys do that they lend."""

    unreferenced = 0
    listable = False

    def __init__(self, image: Matrix, text: Matrix, table: Table | None, limits: Limits) -> None:
        if (image.rows, image.width) != (text.rows, text.width):
            shapes = f"({image.rows}, {image.width}) and ({text.rows}, {text.width})"
            raise UploadRefused(
                "embedding_shape_mismatch", f"{image.name} and {text.name} have different shapes: {shapes}"
            )
        self._image, self._text, self._table, self._limits = image, text, table, limits
        self._columns = embedding_columns(table) if table else None
        self._placement = placement_of(image, text)
        self.total: int | None = image.rows
        self.ignored_columns = table.ignored_columns if table else ()
        if table is not None and table.total is not None:
            self._check_count(table, table.total)

    @property
    def block_rows(self) -> int:
        """Rows of a block; 0 where the rows cannot be read from any block on, but only from the first."""
        return self._rows_a_block if self._table is None and self._placement else 0

    @property
    def _rows_a_block(self) -> int:
        return min(self._limits.block_rows, max(1, self._limits.block_bytes // (4 * self._image.width)))

    def __iter__(self) -> Iterator[Item]:
        return self.between(0, self._image.rows)

    def between(self, first: int, last: int) -> Iterator[Item]:
        """What the rows from `first`, where a block begins, to just before `last` give."""
        rows = iter(self._table) if self._table else None
        count = self._rows_a_block
        blocks = (side.blocks(count, first, last) for side in (self._image, self._text))
        for image, text in zip(*blocks, strict=True):
            described = self._described(rows, first, len(image))
            yield from embedding_items(first, image, text, described, self._placement)
            first += len(image)
        if self._table is not None and rows is not None:
            left = sum(1 for _ in islice(rows, self._limits.max_rows))
            self._check_count(self._table, first + left)

    def _described(
        self, rows: Iterator[Row | BadRow] | None, first: int, count: int
    ) -> "list[Described | RejectedPair] | None":
        if rows is None or self._table is None:
            return None
        columns = self._columns or Columns(None, None, None)
        described = [
            described_row(row, first + at, columns, self._limits) for at, row in enumerate(islice(rows, count))
        ]
        if len(described) < count:
            self._check_count(self._table, first + len(described))
        return described

    def _check_count(self, table: Table, count: int) -> None:
        if count != self._image.rows:
            raise UploadRefused(
                "metadata_row_count", f"{table.name} has {count} rows beside {self._image.rows} embeddings"
            )


def described_row(row: Row | BadRow, number: int, columns: Columns, limits: Limits) -> "Described | RejectedPair":
    """Key, caption and other columns of one row; without a key the key is `number`."""
    if isinstance(row, BadRow):
        if row.count_lost:  # which row belongs to which embedding is no longer known
            raise UploadRefused("unreadable_table", f"{row.place}: {row.reason}")
        return RejectedPair(str(number), None, f"{row.place}: {row.reason}")
    key = row.values.get(columns.key) if columns.key else str(number)
    caption = row.values.get(columns.caption) if columns.caption else None
    try:
        said = None if caption is None or caption == "" else caption_from(caption, limits)
        return key_from(key, limits), said, extra_from(row.values, {columns.key, columns.caption}, limits)
    except PairRefused as error:
        return RejectedPair(shown(key), shown(caption), f"{row.place}: {error}", error.rejection)


def embedding_items(
    first: int,
    image: npt.NDArray[np.float32],
    text: npt.NDArray[np.float32],
    described: "list[Described | RejectedPair] | None",
    placement: Placement | None = None,
) -> Iterator[Item]:
    """The rows from `first` on: those turned away, then a block of the others. `image`, `text`: (n, E).

    Where nothing describes them their keys are their numbers. `placement` says where all rows of the upload are.
    """
    sound = {"image": _finite_rows(image), "text": _finite_rows(text)}
    count, numbered = len(image), described is None
    if described is None:
        keys = [str(number) for number in range(first, first + count)]
        if sound["image"].all() and sound["text"].all():  # no object for each row: a million of them take seconds
            rows = np.arange(first, first + count) if placement else None
            yield EmbeddingBlock(first, keys, [None] * count, [{}] * count, image, text, True, rows, placement)
            return
        described = [(key, None, {}) for key in keys]
    good: list[int] = []
    block = EmbeddingBlock(first, [], [], [], image, text, numbered)
    for at, row in enumerate(described):
        bad = [side for side, finite in sound.items() if not finite[at]]
        if isinstance(row, RejectedPair):
            yield row
        elif bad:
            reason = f"row {first + at}: the {' and '.join(bad)} embedding holds NaN or an infinity"
            yield RejectedPair(row[0], row[1], reason, Rejection.UNFIT_EMBEDDING)
        else:
            good.append(at)
            block.keys.append(row[0])
            block.captions.append(row[1])
            block.extras.append(row[2])
    rows = first + np.array(good, dtype=np.int64) if placement else None
    if len(good) == len(described):
        yield replace(block, rows=rows, placement=placement)
    elif good:
        yield replace(block, image=image[good], text=text[good], rows=rows, placement=placement)


def _finite_rows(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(n, E) → (n,). A row whose sum is finite is finite: one product, and the long way only for what is left."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite: npt.NDArray[np.bool_] = np.isfinite(values @ np.ones(values.shape[1], dtype=np.float32))
    finite[~finite] = np.isfinite(values[~finite]).all(axis=1)
    return finite


def _choose_safetensors(archive: Archive, contents: Contents) -> list[int]:
    matrices = only(archive, some(contents.safetensors, "safetensors", ".safetensors file"))
    return [matrices, *_beside(archive, contents)]


def _choose_npy(archive: Archive, contents: Contents) -> list[int]:
    sides = (some(contents.image_npy, "npy", "image.npy"), some(contents.text_npy, "npy", "text.npy"))
    return [*(only(archive, positions) for positions in sides), *_beside(archive, contents)]


def _beside(archive: Archive, contents: Contents) -> list[int]:
    """The table beside the matrices, if there is one."""
    tables = contents.metadata or (contents.parquet if len(contents.parquet) == 1 else [])
    return [only(archive, tables)] if tables else []


def _read_safetensors(archive: Archive, _contents: Contents, chosen: list[int], _template: str) -> Embeddings:
    position, *table = chosen
    name, size = archive.members.name(position), archive.size(position)
    open_stream, limits = partial(archive.open, position), archive.limits
    image, text = safetensors_matrices(name, size, open_stream, limits, archive.offset(position))
    return Embeddings(image, text, open_table(archive, table[0]) if table else None, limits)


def _read_safetensors_alone(name: str, file: IO[bytes], limits: Limits) -> Embeddings:
    size, spent = file.seek(0, 2), Spent(limits)

    def whole() -> IO[bytes]:
        return cast(IO[bytes], ByteRange(file, 0, size, spent))

    return Embeddings(*safetensors_matrices(name, size, whole, limits, at=0), None, limits)


def _read_npy(archive: Archive, _contents: Contents, chosen: list[int], _template: str) -> Embeddings:
    image, text, *table = chosen
    sides = _npy(archive, image), _npy(archive, text)
    return Embeddings(*sides, open_table(archive, table[0]) if table else None, archive.limits)


def _npy(archive: Archive, position: int) -> Matrix:
    name, open_stream = archive.members.name(position), partial(archive.open, position)
    return npy_matrix(name, archive.size(position), open_stream, archive.limits, archive.offset(position))


SAFETENSORS = DatasetFormat(
    name="safetensors",
    kind="embeddings",
    precedence=30,
    fits=lambda _archive, contents: bool(contents.safetensors),
    choose=_choose_safetensors,
    read=_read_safetensors,
    read_alone=_read_safetensors_alone,
    takes_images=False,
)
"""embeddings as tensors `image` and `text`"""

NPY = DatasetFormat(
    name="npy",
    kind="embeddings",
    precedence=20,
    fits=lambda _archive, contents: bool(contents.image_npy and contents.text_npy),
    choose=_choose_npy,
    read=_read_npy,
    takes_images=False,
)
"""embeddings as `image.npy` and `text.npy`"""
