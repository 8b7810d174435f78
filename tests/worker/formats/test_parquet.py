"""Parquet whose rows hold the images themselves."""

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.formats import Format, ImagePair, Limits

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CELLS = [{"bytes": b"A", "path": "a.jpg"}, {"bytes": b"B", "path": None}]


def parquet(columns, **how):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **how)
    return buffer.getvalue()


def hugging_face(cells=CELLS, captions=("a cat", "a dog"), **more):
    return parquet({"image": pa.array(cells, CELL), "text": list(captions), **more})


def test_hugging_face_parquet(upload, read):
    found = read(upload(hugging_face(label=[3, 4], tags=[["x"], None])))
    assert (found.format, found.kind, found.total) == (Format.PARQUET, "images", 2)
    assert found.pairs == [
        ImagePair("a.jpg", "a cat", b"A", {"label": 3, "tags": ["x"]}),
        ImagePair("1", "a dog", b"B", {"label": 4, "tags": None}),
    ]


def test_img2dataset_parquet(upload, read):
    found = read(upload(parquet({"jpg": [b"A"], "caption": ["x"], "key": ["0007"], "url": ["u"], "thumb": [b"t"]})))
    assert found.pairs == [ImagePair("0007", "x", b"A", {"url": "u"})]
    assert found.ignored_columns == ("thumb",)


@pytest.mark.parametrize("pack", ["zipped", "tarred"])
def test_shards_in_an_archive_in_the_order_of_their_names(pack, read, request):
    cells = [{"bytes": b"A", "path": None}] * 2
    shards = {
        "d/train-1.parquet": hugging_face(cells, ["c", "d"]),
        "d/train-0.parquet": hugging_face(cells, ["a", "b"]),
    }
    found = read(request.getfixturevalue(pack)(shards))
    assert [(pair.key, pair.caption) for pair in found.pairs] == [("0", "a"), ("1", "b"), ("2", "c"), ("3", "d")]
    assert found.total == 4


def test_rows_turned_away(upload, read):
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
        (hugging_face()[:-100] + b"PAR1", "unreadable_archive", "unreadable archive: "),
        (b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", "unreadable_archive", "unreadable archive: "),
        (b"PAR1", "unreadable_archive", "unreadable archive: "),
        (
            parquet({"jpg": [b"A"], "title": ["x"]}),
            "missing_column",
            "no column caption or text; its columns are: jpg (binary)",
        ),
        (parquet({str(n): [n] for n in range(1001)}), "unreadable_table", "has 1001 columns; 1000 is the most"),
    ],
)
def test_parquet_that_is_no_dataset(upload, refusal, content, code, wanted):
    refused = refusal(upload(content), filename="x.parquet")
    assert refused.code == code
    assert wanted in refused.message


def test_damage_in_a_page_refuses_the_upload(upload, refusal):
    content = bytearray(parquet({"jpg": [b"A" * 1000], "caption": ["x" * 1000]}, compression="zstd"))
    content[30:60] = b"\xff" * 30
    assert refusal(upload(bytes(content))).code == "unreadable_archive"


def test_a_parquet_bomb_is_refused_by_its_ratio(upload, refusal):
    content = parquet({"jpg": [b"A"] * 8, "caption": ["x" * (1 << 20)] * 8}, compression="zstd", use_dictionary=False)
    refused = refusal(upload(content), limits=Limits(ratio_floor_bytes=1 << 20))
    assert (refused.code, "unpacks to more than 200 times" in refused.message) == ("decompression_bomb", True)


def test_one_long_value_repeated_by_a_dictionary_is_read_a_few_rows_at_a_time(upload):
    from worker.formats import UploadReader

    image = bytes(range(256)) * (1 << 10)  # 256 KiB
    path = upload(
        parquet(
            {"jpg": pa.array([image]).dictionary_encode().take([0] * 400).dictionary_decode(), "caption": ["x"] * 400},
            compression="none",
        )
    )
    assert path.stat().st_size < 4 << 20
    before = pa.default_memory_pool().max_memory()
    with UploadReader(path, limits=Limits(block_bytes=1 << 18)) as reader:
        assert sum(1 for _ in reader) == 400
    assert pa.default_memory_pool().max_memory() <= max(before, 16 << 20)


def test_every_type_of_column_comes_out_as_json(upload, read):
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


def test_limits_hold_inside_arrow(tarred, refusal):
    refused = refusal(tarred({"x.parquet": hugging_face()}), limits=Limits(max_total_bytes=1000))
    assert (refused.code, refused.message) == ("too_large", "the upload holds more than 1000 bytes")


def test_too_many_rows(upload, refusal):
    refused = refusal(upload(hugging_face()), limits=Limits(max_rows=1))
    assert refused.code == "too_many_rows"
