"""Embeddings in the rows of a parquet file: two columns of lists as matrices. Runs in the reading process."""

import json
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from readers.limits import Limits
from readers.refusals import UploadRefused
from readers.tables.parquet_batches import batch_rows
from readers.tables.parquet_frames import write_frame


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column holds lists of floats, of one size or of any."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def write_vectors(
    out: IO[bytes], parquet: pq.ParquetFile, columns: list[str], vectors: list[str], width: int | None, limits: Limits
) -> None:
    """Frames of some rows each. JSON: `rows` (the other columns), `width`, `bad` (row in the frame: reason); then both
    matrices, (n, width) float32, a row of zeros where it is bad.
    """
    for batch in parquet.iter_batches(_rows_at_once(parquet, vectors, limits), columns=columns + vectors):
        arrays = [batch.column(name) for name in vectors]
        width = width or _first_width(arrays[0], limits)
        sides = [_matrix(array, width, side) for array, side in zip(arrays, ("image", "text"), strict=True)]
        bad = {row: why for _, found in sides for row, why in found.items()}
        about = {"rows": batch_rows(batch.select(columns)), "width": width, "bad": bad}
        write_frame(out, json.dumps(about, default=str), b"".join(matrix.tobytes() for matrix, _ in sides))


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
