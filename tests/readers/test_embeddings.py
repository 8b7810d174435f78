"""Embeddings that were computed before they came."""

import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import EmbeddingBlock
from readers.upload import UploadReader
from tests.readers.conftest import Npy, Read, ReadUpload, Refusal, Tarred, WriteUpload, Zipped

N, E = 10, 3
IMAGE = np.arange(N * E, dtype=np.float32).reshape(N, E)
TEXT = -IMAGE


@pytest.fixture
def npz(zipped: Zipped, npy: Npy) -> Callable[..., Path]:
    """A zip of two arrays, and other files."""
    return lambda image=IMAGE, text=TEXT, other=None, **how: zipped(
        {"image.npy": npy(image), "text.npy": npy(text), **(other or {})}, **how
    )


def joined(found: Read, side: str) -> npt.NDArray[Any]:
    return np.concatenate([getattr(block, side) for block in found.blocks])


def test_two_npy_in_a_zip(npz: Callable[..., Path], read: ReadUpload) -> None:
    found = read(npz(), limits=Limits(block_rows=4))
    assert (found.format, found.kind, found.total) == (Format.NPY, "embeddings", N)
    assert [(block.first_row, len(block.keys)) for block in found.blocks] == [(0, 4), (4, 4), (8, 2)]
    assert [key for block in found.blocks for key in block.keys] == [str(n) for n in range(N)]
    assert found.blocks[0].captions == [None] * 4
    assert found.blocks[0].extras == [{}] * 4
    np.testing.assert_array_equal(joined(found, "image"), IMAGE)
    np.testing.assert_array_equal(joined(found, "text"), TEXT)


def test_stored_zip_and_tar_in_a_folder(npz: Callable[..., Path], tarred: Tarred, npy: Npy, read: ReadUpload) -> None:
    np.testing.assert_array_equal(joined(read(npz(compression=zipfile.ZIP_STORED)), "text"), TEXT)
    tar = tarred({"emb/image.npy": npy(IMAGE), "emb/text.npy": npy(TEXT)}, "w:gz")
    np.testing.assert_array_equal(joined(read(tar), "image"), IMAGE)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_every_float_becomes_float32(npz: Callable[..., Path], read: ReadUpload, dtype: str) -> None:
    found = read(npz(IMAGE.astype(dtype), TEXT.astype(dtype)))
    assert joined(found, "image").dtype == np.float32
    np.testing.assert_array_equal(joined(found, "image"), IMAGE)


def test_wide_rows_come_in_smaller_blocks(npz: Callable[..., Path], read: ReadUpload) -> None:
    found = read(npz(), limits=Limits(block_bytes=2 * E * 4))
    assert [len(block.keys) for block in found.blocks] == [2] * 5


def test_metadata_beside_them(npz: Callable[..., Path], read: ReadUpload) -> None:
    rows = b"key,caption,label\n" + b"".join(b"k%d,caption %d,%d\n" % (n, n, n % 2) for n in range(N))
    found = read(npz(other={"metadata.csv": rows}), limits=Limits(block_rows=4))
    assert found.blocks[1].keys == ["k4", "k5", "k6", "k7"]
    assert found.blocks[1].captions == ["caption 4", "caption 5", "caption 6", "caption 7"]
    assert found.blocks[1].extras[0] == {"label": "0"}


def test_metadata_without_captions_or_keys(npz: Callable[..., Path], read: ReadUpload) -> None:
    rows = b"".join(json.dumps({"file_name": "x.png", "n": n}).encode() + b"\n" for n in range(N))
    found = read(npz(other={"metadata.jsonl": rows}))
    assert found.blocks[0].keys[:3] == ["x.png", "x.png#2", "x.png#3"]
    assert (found.blocks[0].captions[0], found.blocks[0].extras[9]) == (None, {"n": 9})


@pytest.mark.parametrize("rows", [N - 1, N + 1])
def test_metadata_of_another_length(npz: Callable[..., Path], refusal: Refusal, rows: int) -> None:
    refused = refusal(npz(other={"metadata.csv": b"key\n" + b"k\n" * rows}))
    assert refused.code == "metadata_row_count"
    assert f"metadata.csv has {rows} rows beside {N} embeddings" in refused.message


def test_a_bad_metadata_row_rejects_its_embedding_only(npz: Callable[..., Path], read: ReadUpload) -> None:
    rows = b"key,caption\n" + b"k,fine\n" * 4 + b"k,caf\xe9\n" + b"k\n" + b"k,fine\n" * 4
    found = read(npz(other={"metadata.csv": rows}))
    assert found.reasons == [
        "row 5 of metadata.csv, line 6: the caption holds bytes that are not UTF-8",
        "row 6 of metadata.csv, line 7: 1 fields where the header names 2",
    ]
    np.testing.assert_array_equal(found.blocks[0].image, np.delete(IMAGE, [4, 5], axis=0))


def test_metadata_whose_rows_can_no_longer_be_counted(npz: Callable[..., Path], refusal: Refusal) -> None:
    rows = b'key,caption\nk,"open\n' + b"k,fine\n" * 9
    refused = refusal(npz(other={"metadata.csv": rows}))
    assert refused.code == "unreadable_table"
    assert "row 1 of metadata.csv, line 2: unexpected end of data" in refused.message


def test_rows_that_are_not_finite_are_rejected_and_zeros_kept(npz: Callable[..., Path], read: ReadUpload) -> None:
    image, text = IMAGE.astype(np.float64), TEXT.copy()
    image[2, 1], text[2, 0], text[5, 0], image[7, 0] = np.nan, np.inf, -np.inf, 1e300
    image[0] = 0
    found = read(npz(image, text))
    assert found.reasons == [
        "row 2: the image and text embedding holds NaN or an infinity",
        "row 5: the text embedding holds NaN or an infinity",
        "row 7: the image embedding holds NaN or an infinity",
    ]
    assert found.blocks[0].keys == ["0", "1", "3", "4", "6", "8", "9"]
    assert len(found.blocks[0].image) == len(found.blocks[0].text) == 7
    assert not found.blocks[0].image[0].any()


def test_a_block_without_a_good_row_is_not_given_out(npz: Callable[..., Path], read: ReadUpload) -> None:
    found = read(npz(np.full((N, E), np.nan, np.float32)))
    assert (found.blocks, len(found.rejected)) == ([], N)


@pytest.mark.parametrize(
    ("image", "text", "code", "wanted"),
    [
        (
            IMAGE,
            TEXT[:-1],
            "embedding_shape_mismatch",
            "image.npy and text.npy have different shapes: (10, 3) and (9, 3)",
        ),
        (IMAGE, TEXT[:, :-1], "embedding_shape_mismatch", "(10, 3) and (10, 2)"),
        (IMAGE[0], TEXT[0], "embedding_shape", "image.npy has shape (3,); (N, E) is needed"),
        (IMAGE[:0], TEXT[:0], "embedding_shape", "image.npy has shape (0, 3); N ≥ 1 and 1 ≤ E ≤ 65536 are needed"),
        (IMAGE[:, :0], TEXT[:, :0], "embedding_shape", "image.npy has shape (10, 0)"),
        (IMAGE.astype(np.int64), TEXT, "embedding_dtype", "image.npy has dtype <i8; float16, float32 and float64"),
        (IMAGE.astype(np.complex64), TEXT, "embedding_dtype", "<c8"),
        (IMAGE.astype(np.longdouble), TEXT, "embedding_dtype", "<f16"),
        (IMAGE.view("V2"), TEXT, "embedding_dtype", "image.npy has dtype |V2"),
        (np.zeros((2, 2), [("a", "f4")]), TEXT, "embedding_dtype", "image.npy has dtype"),
        (np.asfortranarray(IMAGE), TEXT, "embedding_shape", "save numpy.ascontiguousarray(…) of it"),
    ],
)
def test_arrays_that_are_no_embeddings(
    npz: Callable[..., Path], refusal: Refusal, image: npt.NDArray[Any], text: npt.NDArray[Any], code: str, wanted: str
) -> None:
    refused = refusal(npz(image, text))
    assert refused.code == code
    assert wanted in refused.message


def test_pickled_objects_are_refused_unopened(zipped: Zipped, npy: Npy, refusal: Refusal) -> None:
    objects = npy(np.array([[{}, 1]], dtype=object), allow_pickle=True)
    refused = refusal(zipped({"image.npy": objects, "text.npy": npy(TEXT)}))
    assert refused.code == "pickle_refused"
    assert "image.npy holds pickled objects, which can run code" in refused.message


def npy_header(shape: str, descr: str = "<f4", length: int | None = None, version: bytes = b"\1\0") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text


@pytest.mark.parametrize(
    ("content", "code", "wanted"),
    [
        (npy_header("(1099511627, 1024)"), "too_many_rows", "image.npy has 1099511627 rows; 20000000 is the most"),
        (
            npy_header("(20000000, 65536)"),
            "embedding_shape",
            "image.npy has shape (20000000, 65536) and dtype <f4, but 0 bytes",
        ),
        (npy_header("(10, 3)") + bytes(119), "embedding_shape", "but 119 bytes of numbers"),
        (npy_header("(10, 3)") + bytes(121), "embedding_shape", "but 121 bytes of numbers"),
        (npy_header("(-1, -30)") + bytes(120), "embedding_shape", "(-1, -30)"),
        (
            npy_header("(10, 3)", length=0xFFFFFFFF, version=b"\2\0"),
            "unreadable_archive",
            "image.npy is not a readable .npy",
        ),
        (
            npy_header("(10, 3)", version=b"\3\0"),
            "unreadable_archive",
            "does not begin as one of version 1.0 or 2.0 does",
        ),
        (npy_header("(" * 4000), "unreadable_archive", "image.npy is not a readable .npy"),
        (npy_header("(10, 3)", descr="O'.__class__, 'x"), "unreadable_archive", "image.npy is not a readable .npy"),
        (npy_header("(True, 3)"), "unreadable_archive", "image.npy is not a readable .npy: it has no shape"),
        (b"\x93NUMPY", "unreadable_archive", "image.npy is not a readable .npy"),
        (b"", "unreadable_archive", "image.npy is not a readable .npy"),
    ],
)
def test_a_npy_whose_header_lies(
    zipped: Zipped, npy: Npy, refusal: Refusal, content: bytes, code: str, wanted: str
) -> None:
    refused = refusal(zipped({"image.npy": content, "text.npy": npy(TEXT)}))
    assert refused.code == code
    assert wanted in refused.message


def test_two_image_npy_are_ambiguous(npz: Callable[..., Path], npy: Npy, refusal: Refusal) -> None:
    refused = refusal(npz(other={"test/image.npy": npy(IMAGE)}))
    assert refused.code == "ambiguous_upload"
    assert "image.npy and test/image.npy" in refused.message


def test_safetensors(upload: WriteUpload, read: ReadUpload) -> None:
    found = read(upload(save({"image": IMAGE, "text": TEXT.astype(np.float64)})))
    assert (found.format, found.total) == (Format.SAFETENSORS, N)
    np.testing.assert_array_equal(joined(found, "image"), IMAGE)
    np.testing.assert_array_equal(joined(found, "text"), TEXT)


def raw_safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(
    dtype: str = "F32", shape: tuple[int, ...] = (N, E), offsets: tuple[int, ...] = (0, 4 * N * E)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_safetensors_bfloat16_and_float16(upload: WriteUpload, read: ReadUpload) -> None:
    upper = (IMAGE.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    half = TEXT.astype(np.float16).tobytes()
    header = {"image": entry("BF16", offsets=(0, 60)), "text": entry("F16", offsets=(60, 120))}
    found = read(upload(raw_safetensors(header, upper + half)))
    np.testing.assert_array_equal(joined(found, "image"), IMAGE)
    np.testing.assert_array_equal(joined(found, "text"), TEXT)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_safetensors_in_a_zip_with_metadata(zipped: Zipped, read: ReadUpload, compression: int) -> None:
    rows = b"key\n" + b"".join(b"k%d\n" % n for n in range(N))
    found = read(zipped({"e.safetensors": save({"image": IMAGE, "text": TEXT}), "metadata.csv": rows}, compression))
    assert found.blocks[0].keys[9] == "k9"
    np.testing.assert_array_equal(joined(found, "text"), TEXT)


@pytest.mark.parametrize(
    ("content", "code", "wanted"),
    [
        (
            raw_safetensors({"image": entry(), "texts": entry()}, bytes(120)),
            "missing_tensor",
            "no tensor text; its tensors are: image, texts",
        ),
        (
            raw_safetensors({"image": entry("I64"), "text": entry()}, bytes(120)),
            "embedding_dtype",
            "has dtype I64; F16, F32, F64, BF16 are read",
        ),
        (raw_safetensors({"image": entry("F8_E4M3"), "text": entry()}, bytes(120)), "embedding_dtype", "F8_E4M3"),
        (
            raw_safetensors({"image": entry(shape=(10, 4)), "text": entry()}, bytes(120)),
            "embedding_shape",
            "but other bytes",
        ),
        (raw_safetensors({"image": entry(), "text": entry()}, bytes(119)), "embedding_shape", "but other bytes"),
        (
            raw_safetensors({"image": entry(offsets=(120, 0)), "text": entry()}, bytes(120)),
            "embedding_shape",
            "but other bytes",
        ),
        (
            raw_safetensors({"image": entry(shape=(1 << 62, 1 << 62)), "text": entry()}, bytes(9)),
            "embedding_shape",
            "1 ≤ E",
        ),
        (
            raw_safetensors({"image": entry(shape=(30,)), "text": entry()}, bytes(120)),
            "embedding_shape",
            "(N, E) is needed",
        ),
        (
            raw_safetensors({"image": entry(shape=(5, 3), offsets=(0, 60)), "text": entry()}, bytes(120)),
            "embedding_shape_mismatch",
            "(5, 3) and (10, 3)",
        ),
        (
            raw_safetensors({"image": {"dtype": "F32", "shape": [True, 3], "data_offsets": [0, 1]}}),
            "unreadable_archive",
            "the entry of tensor image is broken",
        ),
        (raw_safetensors({"image": 3}), "unreadable_archive", "the entry of tensor image is broken"),
        (raw_safetensors(b"{nonsense"), "unreadable_archive", "its header is not JSON"),
        (raw_safetensors(b'{"a":' * 50_000), "unreadable_archive", "its header is not JSON"),
    ],
)
def test_safetensors_that_are_no_embeddings(
    upload: WriteUpload, refusal: Refusal, content: bytes, code: str, wanted: str
) -> None:
    refused = refusal(upload(content))
    assert refused.code == code
    assert wanted in refused.message


def test_a_safetensors_header_may_not_be_long(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(raw_safetensors(b"{" + b" " * 200 + b"}")), limits=Limits(max_header_bytes=100))
    assert "its header announces 202 bytes" in refused.message


def test_a_deflated_npy_is_streamed(npz: Callable[..., Path]) -> None:
    wide = np.random.default_rng(0).integers(0, 4, (6_000, 128)).astype(np.float32)
    path = npz(wide, wide)
    tracemalloc.start()
    try:
        with UploadReader(path, limits=Limits(block_rows=64)) as reader:
            rows = sum(len(block.keys) for block in reader if isinstance(block, EmbeddingBlock))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 6_000
    assert peak < wide.nbytes / 2
