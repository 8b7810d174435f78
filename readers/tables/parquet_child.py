"""The program that reads one parquet file: `readers.sandbox.program` says how it is run, within which limits.

Arrow's reader can abort the process it is in (26.0 does over a size histogram of the wrong length), and a page of a
hundred kilobytes may unpack to two gigabytes. Here that ends this program, and the upload is refused.

A request is a `Request`. It is answered by a description of the file, or by frames of some rows each: as JSON, and
after it the bytes of the images that it speaks of, one after another, or two matrices. What cannot be read is answered
with `refused`, a code and a message.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from readers.archives.member_bytes import ByteRange, Spent
from readers.limits import Limits
from readers.refusals import UploadRefused, damage_refused

_FRAME_BYTES = 16 << 20
_MOST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """Which bytes of which open file, and which of their columns; without columns, the file is described.

    `vectors` are an image's and a text's column of embeddings, of `width` numbers each where that is known.
    """

    name: str
    fd: int
    start: int
    length: int
    limits: dict[str, int]
    columns: list[str] | None = None
    image: str | None = None
    vectors: list[str] | None = None
    width: int | None = None


def answers(request_fields: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Read what a request names to its end."""
    request = Request(**request_fields)
    limits = Limits(**request.limits)
    try:
        with damage_refused(f"parquet {request.name}"), os.fdopen(request.fd, "rb") as file:
            stream = cast(IO[bytes], ByteRange(file, request.start, request.length, Spent(limits)))
            with _opened(request.name, stream, limits) as parquet:
                if request.columns is None:
                    yield json.dumps(_description(parquet)), b""
                elif request.vectors is not None:
                    yield from _vectors(parquet, request.columns, request.vectors, request.width, limits)
                else:
                    yield from _rows(parquet, request.columns, request.image, limits)
    except UploadRefused as refused:
        yield json.dumps({"refused": [refused.code, refused.message]}), b""


def _opened(name: str, stream: IO[bytes], limits: Limits) -> pq.ParquetFile:
    """The file with its footer read and believed only as far as the limits go."""
    file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    columns = list(file.schema_arrow.names)
    if len(columns) > limits.max_columns:
        raise UploadRefused("unreadable_table", f"{name} has {len(columns)} columns; {limits.max_columns} is the most")
    if len(set(columns)) < len(columns):
        raise UploadRefused("repeated_column", f"{name} has two columns of one name: {', '.join(columns)}")
    if not 0 <= file.metadata.num_rows <= limits.max_rows:
        raise UploadRefused("too_many_rows", f"{name} has {file.metadata.num_rows} rows; {limits.max_rows} is the most")
    for unpacked, packed, values in _chunks(file):
        if unpacked > limits.max_row_group_bytes or values > limits.max_row_group_bytes // 8:
            raise UploadRefused("too_large", f"a row group of {name} is too large; write it in smaller ones")
        if unpacked > limits.ratio_floor_bytes and unpacked > limits.max_ratio * packed:
            raise UploadRefused(
                "decompression_bomb", f"a column of {name} unpacks to more than {limits.max_ratio} times its size"
            )
    return file


def _chunks(file: pq.ParquetFile) -> Iterator[tuple[int, int, int]]:
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for column in range(row_group.num_columns):
            chunk = row_group.column(column)
            yield chunk.total_uncompressed_size, chunk.total_compressed_size, chunk.num_values


def _description(parquet: pq.ParquetFile) -> dict[str, Any]:
    schema = parquet.schema_arrow
    with_bytes = {field.name for field in schema if _holds_bytes(field.type)}
    columns = [
        [field.name, str(field.type), field.name in with_bytes, _is_image(field.type), _is_vector(field.type)]
        for field in schema
    ]
    return {"rows": parquet.metadata.num_rows, "columns": columns}


def _is_image(kind: pa.DataType) -> str | None:
    if pa.types.is_struct(kind):
        return "struct" if kind.get_field_index("bytes") >= 0 else None
    return "plain" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def _is_vector(kind: pa.DataType) -> bool:
    """Whether a column holds lists of floats, of one size or of any."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether there are bytes anywhere in a type."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))


def _rows(
    parquet: pq.ParquetFile, columns: list[str], image_column: str | None, limits: Limits
) -> Iterator[tuple[str, bytes]]:
    """Frames of `[values, path, size]` of each row; the image taken out of its values, its bytes behind."""
    texts: list[str] = []
    images: list[bytes] = []
    held = 0
    for values in _row_values(parquet, columns, limits):
        image, path, size = _image(values, image_column)
        if size is not None and size <= limits.max_member_bytes:
            images.append(image)
            held += size
        text = json.dumps([values, path, size], default=str)
        if len(text) > 8 * limits.max_extra_chars:
            text = json.dumps(["the row is too long", None, None])
        texts.append(text)
        held += len(text)
        if held > _FRAME_BYTES or len(texts) >= 1024:
            yield f"[{','.join(texts)}]", b"".join(images)
            texts, images, held = [], [], 0
    yield f"[{','.join(texts)}]", b"".join(images)


def _image(values: dict[str, Any] | str, column: str | None) -> tuple[bytes, str | None, int | None]:
    """The image taken out of its row: its bytes, path and size."""
    if column is None or isinstance(values, str):
        return b"", None, None
    cell = values.pop(column)
    image, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    path = path if isinstance(path, str) else None
    return (image, path, len(image)) if isinstance(image, bytes) and image else (b"", path, None)


def _row_values(file: pq.ParquetFile, columns: list[str], limits: Limits) -> Iterator[dict[str, Any] | str]:
    """The rows; one that does not decode is the reason why instead.

    A value can be no longer than the column chunk it is stored in, so rows are taken few at a time where chunks are
    long: a dictionary-encoded column repeats one long value at no cost to its writer.
    """
    longest = max((unpacked for unpacked, _, _ in _chunks(file)), default=0)
    count = min(_MOST_ROWS, max(1, limits.block_bytes // max(1, longest)))
    for batch in file.iter_batches(batch_size=count, columns=columns, use_threads=False):
        yield from _batch_rows(batch)


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """The rows of a batch; one that does not decode is the reason why instead."""
    batch = _with_times_as_text(batch)
    try:
        return [_without_nan(row) for row in batch.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException):
        return [_row(batch.slice(at, 1)) for at in range(batch.num_rows)]


def _row(batch: pa.RecordBatch) -> dict[str, Any] | str:
    try:
        row: dict[str, Any] = _without_nan(batch.to_pylist()[0])
    except UnicodeDecodeError:
        return "it holds bytes that are not UTF-8"
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return str(error)
    return row


def _without_nan(value: Any) -> Any:
    """NaN is how tables of numbers write a missing value; JSON writes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value


def _with_times_as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Python's times have no nanoseconds and end in the year 9999; Arrow's own text has neither limit."""
    for at, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) or pa.types.is_time(field.type) or pa.types.is_date(field.type):
            batch = batch.set_column(at, field.name, pc.cast(batch.column(at), pa.string()))
    return batch


def _vectors(
    parquet: pq.ParquetFile, columns: list[str], vectors: list[str], width: int | None, limits: Limits
) -> Iterator[tuple[str, bytes]]:
    """Frames of some rows each. JSON: `rows` (the other columns), `width`, `bad` (row in the frame: reason); then both
    matrices, (n, width) float32, a row of zeros where it is bad.
    """
    for batch in parquet.iter_batches(_rows_at_once(parquet, vectors, limits), columns=columns + vectors):
        arrays = [batch.column(name) for name in vectors]
        width = width or _first_width(arrays[0], limits)
        sides = [_matrix(array, width, side) for array, side in zip(arrays, ("image", "text"), strict=True)]
        bad = {row: why for _, reasons in sides for row, why in reasons.items()}
        about = {"rows": _batch_rows(batch.select(columns)), "width": width, "bad": bad}
        yield json.dumps(about, default=str), b"".join(matrix.tobytes() for matrix, _ in sides)


def _rows_at_once(parquet: pq.ParquetFile, vectors: list[str], limits: Limits) -> int:
    """By the mean length of a row: one row that is far longer than the others meets this process's memory limit."""
    metadata, leaves = parquet.metadata, _leaves(parquet, vectors)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    values = sum(group.column(at).num_values for group in groups for at in leaves)
    mean = int(values) // max(1, 2 * int(metadata.num_rows))
    return min(limits.block_rows, max(1, limits.block_bytes // (4 * max(1, mean))))


def _leaves(parquet: pq.ParquetFile, vectors: list[str]) -> list[int]:
    schema = parquet.metadata.schema
    return [at for at in range(len(schema)) if schema.column(at).path.split(".")[0] in vectors]


def _first_width(array: pa.Array, limits: Limits) -> int | None:
    lengths = pc.list_value_length(array).drop_null()
    width = lengths[0].as_py() if len(lengths) else None
    if width is not None and not 1 <= width <= limits.max_embedding_width:
        raise UploadRefused(
            "embedding_shape", f"the first embedding has {width} numbers; 1 to {limits.max_embedding_width} are read"
        )
    return width


def _matrix(array: pa.Array, width: int | None, side: str) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), -1), dtype=np.int64)
    values = np.asarray(pc.cast(pc.list_flatten(array), pa.float32(), safe=False).fill_null(float("nan")))
    if width is not None and (lengths == width).all():
        return values.reshape(len(array), width), {}
    matrix = np.zeros((len(array), width or 1), dtype=np.float32)
    bad: dict[int, str] = {}
    at = 0
    for row, length in enumerate(lengths.tolist()):
        if length == width:
            matrix[row] = values[at : at + length]
        else:
            bad[row] = (
                f"no {side} embedding" if length < 0 else f"its {side} embedding has {length} numbers, not {width}"
            )
        at += max(0, length)
    return matrix, bad
