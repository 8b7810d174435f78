"""Exports as Parquet, a row group at a time."""

import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from service.exports.source import MARK_COLUMNS, RESULT_COLUMNS, Source, extra_of, own_names
from store.exports import ExtraColumn

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_ROWS = 65_536
_GROUP_BYTES = 64 << 20
_INT64, _UINT64 = 2**63, 2**64


def parquet_chunks(source: Source) -> Iterator[bytes]:
    """Typed columns: numbers as int64, uint64 or float64, text, true and false; what is mixed, a list or an object is
    JSON text."""
    import pyarrow as pa  # here, because it takes half a second that nobody else should wait for
    from pyarrow import parquet

    columns = source.extra_columns()
    names = own_names(column.name for column in columns)
    kinds = {column.name: _kind(pa, column) for column in columns}
    schema = pa.schema(
        [pa.field(name, _of_result(pa, name)) for name in RESULT_COLUMNS]
        + [pa.field(names[name], kind) for name, (kind, _) in kinds.items()]
    )

    def chunks() -> Iterator[bytes]:
        out = _Drain()
        with parquet.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for piece in source.pieces():
                extras = [extra_of(row) for row in piece]
                arrays = [[getattr(row, name) for row in piece] for name in RESULT_COLUMNS]
                arrays += [[read(extra.get(name)) for extra in extras] for name, (_, read) in kinds.items()]
                waiting.append(pa.record_batch([*map(pa.array, arrays, schema.types)], schema=schema))
                if sum(map(len, waiting)) >= _GROUP_ROWS or sum(batch.nbytes for batch in waiting) >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(waiting), row_group_size=_GROUP_ROWS)
                    waiting = []
                    yield out.taken()
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=_GROUP_ROWS)
        yield out.taken()

    return chunks()


def _of_result(pa: Any, name: str) -> "pa.DataType":
    kinds = {"rank": pa.int64(), "flagged": pa.bool_(), "why": pa.list_(_reason(pa))}
    kinds |= dict.fromkeys(("query", "key", "caption", "better_caption", "exchanged_with", *MARK_COLUMNS), pa.string())
    return kinds.get(name, pa.float64())


def _reason(pa: Any) -> "pa.DataType":
    return pa.struct([("column", pa.string()), ("contribution", pa.float64())])


def _kind(pa: Any, column: ExtraColumn) -> "tuple[pa.DataType, Callable[[Any], Any]]":
    """The type of a column, and how a value gets there."""
    if column.kinds == {"boolean"}:
        return pa.bool_(), _as_is
    if column.kinds == {"number"} and column.least is not None and column.most is not None:
        if not column.whole:
            return pa.float64(), _as_float
        if column.least >= -_INT64 and column.most < _INT64:
            return pa.int64(), _as_is
        if column.least >= 0 and column.most < _UINT64:
            return pa.uint64(), _as_is
    return pa.string(), _as_text


def _as_is(value: Any) -> Any:
    return value


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Drain(io.RawIOBase):
    """A file that is only written to, and whose content is taken out again and again."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._place = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, content: Any) -> int:
        size = len(content)
        self._held += content
        self._place += size
        return size

    def taken(self) -> bytes:
        content, self._held = bytes(self._held), bytearray()
        return content
