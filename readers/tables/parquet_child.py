"""The program that reads one parquet file, in a process of its own with an upper bound on its memory.

Arrow's reader can abort the process it is in (26.0 does over a size histogram of the wrong length), and a page of a
hundred kilobytes may unpack to two gigabytes. Here that ends this program, and the upload is refused.

It reads a `Request` as JSON. What it writes are frames: two lengths, then JSON, then the bytes of the images
that the JSON speaks of, one after another. The first frame lists the layers of its confinement that there are not; the
last one is `null`.
"""

import json
import os
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from readers.archives.byte_range import ByteRange, Spent
from readers.limits import Limits
from readers.refusals import UploadRefused, damage_refused
from readers.sandbox.confinement import confine
from readers.tables.parquet_batches import binary_columns, open_parquet, row_batches
from readers.tables.parquet_frames import write_frame
from readers.tables.parquet_vectors import is_vector, write_vectors

_FRAME_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """Which bytes of which open file, and which of their columns; without columns, only what there is is told.

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

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def answer(asked: IO[bytes], out: IO[bytes]) -> None:
    """Read one request to its end and answer it."""
    write_frame(out, json.dumps(confine()))
    request = Request(**json.load(asked))
    limits = Limits(**request.limits)
    resource.setrlimit(resource.RLIMIT_AS, (limits.parquet_memory_bytes, limits.parquet_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with damage_refused(f"parquet {request.name}"), os.fdopen(request.fd, "rb") as file:
            stream = cast(IO[bytes], ByteRange(file, request.start, request.length, Spent(limits)))
            with open_parquet(request.name, stream, limits) as parquet:
                if request.columns is None:
                    write_frame(out, json.dumps(_description(parquet)))
                elif request.vectors is not None:
                    write_vectors(out, parquet, request.columns, request.vectors, request.width, limits)
                else:
                    _write_rows(out, parquet, request, limits)
        write_frame(out, "null")
    except UploadRefused as refused:
        write_frame(out, json.dumps({"refused": [refused.code, refused.message]}))


def _description(parquet: pq.ParquetFile) -> dict[str, Any]:
    schema = parquet.schema_arrow
    with_bytes = binary_columns(schema)
    columns = [
        [field.name, str(field.type), field.name in with_bytes, _is_image(field.type), is_vector(field.type)]
        for field in schema
    ]
    return {"rows": parquet.metadata.num_rows, "columns": columns}


def _is_image(kind: pa.DataType) -> str | None:
    if pa.types.is_struct(kind):
        return "struct" if kind.get_field_index("bytes") >= 0 else None
    return "plain" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def _write_rows(out: IO[bytes], parquet: pq.ParquetFile, request: Request, limits: Limits) -> None:
    texts: list[str] = []
    images: list[bytes] = []
    held = 0
    for values in _rows(parquet, request, limits):
        image, path, size = _image(values, request.image)
        if size is not None and size <= limits.max_member_bytes:
            images.append(image)
            held += size
        text = json.dumps([values, path, size], default=str)
        if len(text) > 8 * limits.max_extra_chars:
            text = json.dumps(["the row is too long", None, None])
        texts.append(text)
        held += len(text)
        if held > _FRAME_BYTES or len(texts) >= 1024:
            write_frame(out, f"[{','.join(texts)}]", b"".join(images))
            texts, images, held = [], [], 0
    write_frame(out, f"[{','.join(texts)}]", b"".join(images))


def _rows(parquet: pq.ParquetFile, request: Request, limits: Limits) -> Iterator[dict[str, Any] | str]:
    for batch in row_batches(parquet, request.columns or [], limits):
        yield from batch


def _image(values: dict[str, Any] | str, column: str | None) -> tuple[bytes, str | None, int | None]:
    """The image taken out of its row: its bytes, path and size."""
    if column is None or isinstance(values, str):
        return b"", None, None
    cell = values.pop(column)
    image, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    path = path if isinstance(path, str) else None
    return (image, path, len(image)) if isinstance(image, bytes) and image else (b"", path, None)
