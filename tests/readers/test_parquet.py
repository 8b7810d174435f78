"""Parquet whose rows hold the images themselves."""

import base64
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import ImagePair
from tests.readers.conftest import ReadUpload, Refusal, Tarred, WriteUpload, Zipped

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CELLS = [{"bytes": b"A", "path": "a.jpg"}, {"bytes": b"B", "path": None}]


# One byte of a good file changed. Arrow 26.0 aborts the process that asks for its column's metadata.
ABORTS_ARROW = base64.b85decode(
    "P(e~L6#x|$6&5TN0u=xi1{DSz00002000020RaF206`T16&4j1EENJ302Kxm1{?qY00IC200IF40001Z6$BYPH2@d}b7N>_ZDADz"
    "02Kfw0vH2oaAyD&3?%{>1axJ1bR_^x8~^|S76KU@87w9M92E>1B?bT)7z1i>XB7Yz0v0?LJSGT992Ec+02KlNJQe~O1{o#*0ssI2"
    "CIB223>hT`02vqrbY*yS6#y0j7CaU_CPYab6#x|g6#@V}76KUt872S%0000McoqUC2o`t%C?IfQa&dKKbS-0Wa4lhSa&LDac4cyN"
    "X>V>IGBz$SE-@J_8~^|u0002P0000`K~ga"
)


def parquet(columns: dict[str, Any], **how: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **how)
    return buffer.getvalue()


def hugging_face(cells: list[Any] = CELLS, captions: Sequence[str] = ("a cat", "a dog"), **more: Any) -> bytes:
    return parquet({"image": pa.array(cells, CELL), "text": list(captions), **more})


def test_hugging_face_parquet(upload: WriteUpload, read: ReadUpload) -> None:
    found = read(upload(hugging_face(label=[3, 4], tags=[["x"], None])))
    assert (found.format, found.kind, found.total) == (Format.PARQUET, "images", 2)
    assert found.pairs == [
        ImagePair("a.jpg", "a cat", b"A", {"label": 3, "tags": ["x"]}),
        ImagePair("1", "a dog", b"B", {"label": 4, "tags": None}),
    ]


def test_img2dataset_parquet(upload: WriteUpload, read: ReadUpload) -> None:
    found = read(upload(parquet({"jpg": [b"A"], "caption": ["x"], "key": ["0007"], "url": ["u"], "thumb": [b"t"]})))
    assert found.pairs == [ImagePair("0007", "x", b"A", {"url": "u"})]
    assert found.ignored_columns == ("thumb",)


def test_shards_in_an_archive_in_the_order_of_their_names(zipped: Zipped, read: ReadUpload) -> None:
    cells = [{"bytes": b"A", "path": None}] * 2
    shards = {
        "d/train-1.parquet": hugging_face(cells, ["c", "d"]),
        "d/train-0.parquet": hugging_face(cells, ["a", "b"]),
    }
    found = read(zipped(shards))
    assert [(pair.key, pair.caption) for pair in found.pairs] == [("0", "a"), ("1", "b"), ("2", "c"), ("3", "d")]
    assert found.total == 4


def test_rows_turned_away(upload: WriteUpload, read: ReadUpload) -> None:
    cells = [None, {"bytes": None, "path": "x.jpg"}, {"bytes": b"", "path": None}, {"bytes": b"A" * 11}, CELLS[0]]
    found = read(upload(hugging_face(cells, ["a", "b", "c", "d", None])), limits=Limits(max_member_bytes=10))
    assert found.reasons == [
        "row 1 of upload: no image",
        "row 2 of upload: only the path of an image (x.jpg), not its bytes",
        "row 3 of upload: no image",
        "row 4 of upload: the image has 11 bytes; 10 is the most",
        "row 5 of upload: no caption",
    ]


@pytest.mark.parametrize(
    ("content", "code", "wanted"),
    [
        (parquet({"caption": ["x"]}), "missing_column", "x.parquet has no column of images"),
        (hugging_face()[:-100] + b"PAR1", "unreadable_archive", "unreadable parquet "),
        (b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", "unreadable_archive", "unreadable parquet "),
        (b"PAR1", "unreadable_archive", "unreadable parquet "),
        (
            parquet({"jpg": [b"A"], "title": ["x"]}),
            "missing_column",
            "no column caption or text; its columns are: jpg (binary)",
        ),
        (parquet({str(n): [n] for n in range(1001)}), "unreadable_table", "has 1001 columns; 1000 is the most"),
    ],
)
def test_parquet_that_is_no_dataset(
    upload: WriteUpload, refusal: Refusal, content: bytes, code: str, wanted: str
) -> None:
    refused = refusal(upload(content), filename="x.parquet")
    assert refused.code == code
    assert wanted in refused.message


def test_damage_in_a_page_refuses_the_upload(upload: WriteUpload, refusal: Refusal) -> None:
    content = bytearray(parquet({"jpg": [b"A" * 1000], "caption": ["x" * 1000]}, compression="zstd"))
    content[30:60] = b"\xff" * 30
    assert refusal(upload(bytes(content))).code == "unreadable_archive"


def test_a_parquet_bomb_is_refused_by_its_ratio(upload: WriteUpload, refusal: Refusal) -> None:
    content = parquet({"jpg": [b"A"] * 8, "caption": ["x" * (1 << 20)] * 8}, compression="zstd", use_dictionary=False)
    refused = refusal(upload(content), limits=Limits(ratio_floor_bytes=1 << 20))
    assert (refused.code, "unpacks to more than 200 times" in refused.message) == ("decompression_bomb", True)


def test_a_file_that_aborts_arrow_ends_the_upload_and_not_the_worker(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(ABORTS_ARROW), filename="x.parquet")
    assert refused.code == "unreadable_archive"
    assert "the parquet reader broke down over x.parquet" in refused.message


def test_what_needs_too_much_memory_ends_the_upload_and_not_the_worker(upload: WriteUpload, refusal: Refusal) -> None:
    content = parquet({"jpg": [b"A"], "text": ["x" * (24 << 20)]}, compression="zstd", use_dictionary=False)
    limits = Limits(ratio_floor_bytes=1 << 40, parquet_memory_bytes=300 << 20)
    assert refusal(upload(content), limits=limits).code == "unreadable_archive"


def test_what_takes_too_long_ends_the_upload(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(hugging_face()), limits=Limits(parquet_seconds=0))
    assert "took more than 0 seconds" in refused.message


def test_one_long_value_repeated_by_a_dictionary_is_read_a_few_rows_at_a_time(
    upload: WriteUpload, read: ReadUpload
) -> None:
    """200 MiB out of 1 MiB: more than the reader may hold at once."""
    image = bytes(range(256)) * (1 << 12)
    images = pa.array([image]).dictionary_encode().take([0] * 200).dictionary_decode()
    path = upload(parquet({"jpg": images, "text": ["x"] * 200}, compression="none"))
    assert path.stat().st_size < 2 << 20
    found = read(path, limits=Limits(block_bytes=1 << 20, parquet_memory_bytes=420 << 20))
    assert len(found.pairs) == 200


def test_every_type_of_column_comes_out_as_json(upload: WriteUpload, read: ReadUpload) -> None:
    columns = {
        "day": pa.array([19_000], pa.date32()),
        "clock": pa.array([1], pa.time64("ns")),
        "when": pa.array([1], pa.timestamp("us", "UTC")),
        "long": pa.array([1_000_000], pa.duration("us")),
        "price": pa.array([Decimal("1.50")]),
        "id": pa.array([bytes(16)], pa.uuid()),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        "deep": [{"a": [{"b": float("inf")}]}],
        "category": pa.array(["x"]).dictionary_encode(),
        "nothing": pa.nulls(1),
    }
    found = read(upload(parquet({"jpg": [b"A"], "text": ["x"], **columns})))
    assert found.pairs[0].extra == {
        "day": "2022-01-08",
        "clock": "00:00:00.000000001",
        "when": "1970-01-01 00:00:00.000001Z",
        "long": "0:00:01",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000000",
        "map": [["a", 1]],
        "deep": {"a": [{"b": None}]},
        "category": "x",
        "nothing": None,
    }


def test_limits_hold_inside_arrow(tarred: Tarred, refusal: Refusal) -> None:
    refused = refusal(tarred({"x.parquet": hugging_face()}), limits=Limits(max_total_bytes=1000))
    assert (refused.code, refused.message) == ("too_large", "the upload holds more than 1000 bytes")


def test_hostile_column_names(upload: WriteUpload, read: ReadUpload) -> None:
    columns = {f"{n}" + "é" * 500: [n] for n in range(900)} | {"a\0b": [1]}
    found = read(upload(parquet({"jpg": [b"A"], "text": ["x"], **columns})))
    assert found.reasons == ["row 1 of upload: a column's name holds a NUL character"]


def test_too_many_rows(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(hugging_face()), limits=Limits(max_rows=1))
    assert refused.code == "too_many_rows"
