"""Tables of fixed-size records: what a batch needs of each pair, readable at any row without holding the rest.

A blob is a JSON header (its length first, 8 bytes little-endian) and then one record a row: the hash of the caption,
the hash of the image (int64 each, equal where the thing is equal), the image's input and the text's input. Embeddings
that lie in their upload as they are stay there: the record then holds their row in the upload instead. Rows are read
with `pread`, not mapped: mapped pages would count as this process's memory and a job's memory would grow with its data.
"""

import io
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import xxhash

from store.blobs import Blobs

_HEADER_BYTES = 512  # more than any header takes
_ALIGNED = 64  # bytes: where records begin
_MERGE_GAP = 2  # records: two reads this close are one


@dataclass(frozen=True)
class Field:
    """The dtype and shape of one input in a record."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class InUpload:
    """Matrices in another blob: the byte at which each begins, and the numpy type of its numbers."""

    blob: str
    image: tuple[int, str]
    text: tuple[int, str]


@dataclass(frozen=True)
class Layout:
    """What one record holds, in this order after the two hashes; or where what it would hold lies."""

    image: Field
    text: Field
    in_upload: InUpload | None = None

    def stored(self) -> np.dtype[Any]:
        """What stands in the blob: the record, or the hashes and the row in the upload."""
        if self.in_upload is None:
            return self.dtype()
        return np.dtype([("caption", "<i8"), ("image_hash", "<i8"), ("at", "<i8")])

    def dtype(self) -> np.dtype[Any]:
        """The record as a NumPy structured type."""
        return np.dtype(
            [
                ("caption", "<i8"),
                ("image_hash", "<i8"),
                ("image", self.image.dtype, self.image.shape),
                ("text", self.text.dtype, self.text.shape),
            ]
        )

    def header(self) -> bytes:
        content = json.dumps(
            {
                "image": {"dtype": self.image.dtype, "shape": self.image.shape},
                "text": {"dtype": self.text.dtype, "shape": self.text.shape},
                "lying": asdict(self.in_upload) if self.in_upload else None,
            }
        ).encode()
        content += b" " * (-(8 + len(content)) % _ALIGNED)
        return len(content).to_bytes(8, "little") + content


def _read_layout(file: IO[bytes]) -> tuple[Layout, int]:
    length = int.from_bytes(file.read(8), "little")
    content = json.loads(file.read(length))
    image, text = (Field(content[name]["dtype"], tuple(content[name]["shape"])) for name in ("image", "text"))
    if (matrices := content.get("lying")) is None:
        return Layout(image, text), 8 + length
    return Layout(
        image, text, InUpload(matrices["blob"], tuple(matrices["image"]), tuple(matrices["text"]))
    ), 8 + length


def pack(
    captions: npt.NDArray[np.int64],
    image_hashes: npt.NDArray[np.int64],
    images: npt.NDArray[Any],
    texts: npt.NDArray[Any],
) -> memoryview:
    """A whole blob of n records. All four have n rows."""
    layout = Layout(
        Field(images.dtype.str, tuple(images.shape[1:])),
        Field(texts.dtype.str, tuple(texts.shape[1:])),
    )
    content, records = _empty(layout, len(captions))
    records["caption"], records["image_hash"] = captions, image_hashes
    records["image"], records["text"] = images, texts
    return content


def pack_rows(
    captions: npt.NDArray[np.int64],
    image_hashes: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    width: int,
    in_upload: InUpload,
) -> memoryview:
    """A whole blob of n records whose embeddings, of `width`, are these rows of the upload. All three have n rows."""
    floats = Field("<f4", (width,))
    content, records = _empty(Layout(floats, floats, in_upload), len(captions))
    records["caption"], records["image_hash"], records["at"] = captions, image_hashes, rows
    return content


def _empty(layout: Layout, count: int) -> tuple[memoryview, npt.NDArray[Any]]:
    """A blob with its header, and its records to be filled in."""
    header, dtype = layout.header(), layout.stored()
    content = np.empty(len(header) + count * dtype.itemsize, dtype=np.uint8)
    content[: len(header)] = np.frombuffer(header, dtype=np.uint8)
    return content.data, content[len(header) :].view(dtype)


def read_records(blobs: Blobs, blob: str, rows: Sequence[int]) -> npt.NDArray[Any]:
    """Some records of one blob, (n,) structured, and no more of it than that.

    Raises:
        FileNotFoundError: the blob is gone.
    """
    layout, offset = _read_layout(io.BytesIO(blobs.get_range(blob, 0, _HEADER_BYTES)))
    dtype = layout.dtype()
    pieces = blobs.get_ranges(blob, [(offset + row * dtype.itemsize, dtype.itemsize) for row in rows])
    records: npt.NDArray[Any] = np.frombuffer(b"".join(pieces), dtype=dtype)
    return records


@dataclass(frozen=True)
class PartBlob:
    """Which blob holds which rows."""

    blob: str
    first_row: int
    count: int


class RecordTable:
    """The records of a dataset over all its parts. Close it, or use it as a context."""

    def __init__(self, blobs: Blobs, parts: Sequence[PartBlob]) -> None:
        self._stack = ExitStack()
        self._starts = np.array([part.first_row for part in parts], dtype=np.int64)
        self._files = [self._stack.enter_context(blobs.open(part.blob)) for part in parts]
        self.layout, self._offset = _read_layout(self._files[0])
        self._dtype, self._stored = self.layout.dtype(), self.layout.stored()
        in_upload = self.layout.in_upload
        self._upload = self._stack.enter_context(blobs.open(in_upload.blob)) if in_upload else None
        self.count = sum(part.count for part in parts)

    def close(self) -> None:
        self._stack.close()

    def rows(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The records of these rows, (n,) structured, in the order asked for."""
        stored = self._records(wanted)
        in_upload = self.layout.in_upload
        if in_upload is None:
            return stored
        out = np.empty(len(wanted), dtype=self._dtype)
        out["caption"], out["image_hash"] = stored["caption"], stored["image_hash"]
        out["image"] = self._in_upload(*in_upload.image, stored["at"])
        out["text"] = self._in_upload(*in_upload.text, stored["at"])
        return out

    def _in_upload(self, offset: int, dtype: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows of a matrix in the upload, (n, E), in the order asked for."""
        assert self._upload is not None  # noqa: S101  there is a layout that says where
        out = np.empty((len(rows), *self.layout.image.shape), dtype=dtype)
        size = out.itemsize * out.shape[1]
        file, pieces = self._upload.fileno(), out.view(np.uint8).reshape(len(rows), size)
        for row, piece in zip(rows.tolist(), pieces, strict=True):
            if os.preadv(file, [piece.data], offset + row * size) != size:
                raise OSError(f"row {row} of the upload: it ends too early")
        return out

    def _records(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """What stands in the parts' blobs for these rows."""
        out = np.empty(len(wanted), dtype=self._stored)
        order = np.argsort(wanted, kind="stable")
        rows = wanted[order]
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        start = 0
        while start < len(rows):
            stop = start + 1
            while stop < len(rows) and part_of[stop] == part_of[start] and rows[stop] - rows[stop - 1] <= _MERGE_GAP:
                stop += 1
            out[order[start:stop]] = self._read(int(part_of[start]), rows[start:stop])
            start = stop
        return out

    def _read(self, part: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        size = self._stored.itemsize
        first = int(rows[0] - self._starts[part])
        count = int(rows[-1] - rows[0]) + 1
        content = os.pread(self._files[part].fileno(), count * size, self._offset + first * size)
        if len(content) != count * size:
            raise OSError(f"rows {rows[0]}–{rows[-1]}: the blob ends too early")
        records: npt.NDArray[Any] = np.frombuffer(content, dtype=self._stored)
        wanted: npt.NDArray[Any] = records[rows - rows[0]]
        return wanted


def content_hash(content: bytes | memoryview) -> int:
    """A signed 64-bit hash, equal where the content is equal.

    XXH3, not a cryptographic hash: whoever makes two contents of one hash deceives nobody but their own dataset.
    """
    hashed: int = xxhash.xxh3_64_intdigest(content)
    return hashed - (1 << 64) if hashed >> 63 else hashed


def row_hashes(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """`content_hash` of the bytes of each row. (n, E), contiguous → (n,)."""
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, rows), dtype=np.uint64, count=len(rows))
    return hashes.view(np.int64)
