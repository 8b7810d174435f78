"""Rows of a parquet file as Python objects, a few at a time."""

import math
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from readers.limits import Limits
from readers.refusals import UploadRefused

_MOST_ROWS = 1024


def open_parquet(name: str, stream: IO[bytes], limits: Limits) -> pq.ParquetFile:
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


def row_batches(file: pq.ParquetFile, columns: list[str], limits: Limits) -> Iterator[list[dict[str, Any] | str]]:
    """Batches of rows; a row that does not decode is the reason why instead.

    A value can be no longer than the column chunk it is stored in, so rows are taken few at a time where chunks are
    long: a dictionary-encoded column repeats one long value at no cost to its writer.
    """
    longest = max((unpacked for unpacked, _, _ in _chunks(file)), default=0)
    count = min(_MOST_ROWS, max(1, limits.block_bytes // max(1, longest)))
    for batch in file.iter_batches(batch_size=count, columns=columns, use_threads=False):
        yield batch_rows(batch)


def binary_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Columns that hold bytes anywhere in their type."""
    return tuple(field.name for field in schema if _holds_bytes(field.type))


def _chunks(file: pq.ParquetFile) -> Iterator[tuple[int, int, int]]:
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for column in range(row_group.num_columns):
            chunk = row_group.column(column)
            yield chunk.total_uncompressed_size, chunk.total_compressed_size, chunk.num_values


def batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
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


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))
