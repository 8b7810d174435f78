"""Text: marks, encodings, NUL, surrogates, NaN, repeated keys, lines without end; parquet that is broken."""

import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import Case, fixed, shard, table, zip_of
from tests.readers.conftest import tar_bytes
from tests.service_fixtures import picture

HEADER = b"file_name,caption\n"
GOOD = b"0.png,fine\n"
JSON = b'{"file_name": "0.png", "caption": "fine"}\n'
STORED = zipfile.ZIP_STORED


def _parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


PARQUET = _parquet(image=[{"bytes": picture(0), "path": "0.png"}] * 2, text=["a", "b"])
ROWS = {
    "NUL in a caption": (b"0.png,a\0b\n", ("line 3", "NUL")),
    "Latin-1": (b"0.png,caf\xe9\n", ("line 3", "not UTF-8")),
    "too few fields": (b"0.png\n", ("line 3", "1 fields")),
    "too many fields": (b"0.png,a,b,c\n", ("line 3", "4 fields")),
    "a quote in the middle": (b'0.png,"a"b\n', ("line 3",)),
    "a caption of 10,001 characters": (b"0.png," + b"x" * 10_001 + b"\n", ("line 3", "10001 characters")),
    "a caption of two megabytes": (b"0.png," + b"x" * (2 << 20) + b"\n", ("line 3", "longer than")),
}
LINES = {
    "NaN": (b'{"file_name": "0.png", "caption": "x", "w": NaN}', ("line 2", "NaN")),
    "an infinity": (b'{"file_name": "0.png", "caption": "x", "w": 1e999}', ("line 2", "column w")),
    "a key twice": (b'{"file_name": "0.png", "caption": "x", "caption": "y"}', ("line 2", "twice")),
    "half of a surrogate pair": (b'{"file_name": "0.png", "caption": "\\ud800"}', ("line 2", "surrogate")),
    "NUL, escaped": (b'{"file_name": "0.png", "caption": "\\u0000"}', ("line 2", "NUL")),
    "nested a hundred thousand deep": (b"[" * 100_000, ("line 2", "deep")),
    "a number of 5,000 digits": (b'{"file_name": "0.png", "caption": "x", "n": ' + b"9" * 5000 + b"}", ("line 2",)),
    "no object": (b"[1, 2]", ("line 2", "not a JSON object")),
}

CASES = [
    *(
        Case(
            f"csv: {name}",
            "rejected",
            ("metadata.csv", *words),
            fixed(table, HEADER + GOOD + row + GOOD),
            kept=2,
        )
        for name, (row, words) in ROWS.items()
    ),
    *(
        Case(
            f"json lines: {name}",
            "rejected",
            ("metadata.jsonl", *words),
            fixed(table, JSON + line + b"\n" + JSON, "metadata.jsonl"),
            kept=2,
        )
        for name, (line, words) in LINES.items()
    ),
    Case(
        "csv: a line of a hundred megabytes",
        "rejected",
        ("metadata.csv, line 2", "longer than"),
        lambda _: table(HEADER + b"0.png," + b"x" * 100_000_000 + b"\n" + GOOD, compression=STORED),
        kept=1,
    ),
    Case(
        "json lines: a line of a hundred megabytes",
        "rejected",
        ("metadata.jsonl, line 1", "longer than"),
        lambda _: table(b'{"caption": "' + b"x" * 100_000_000 + b'"}\n' + JSON, "metadata.jsonl", STORED),
        kept=1,
    ),
    Case(
        "csv: a quote left open",
        "rejected",
        ("metadata.csv, line 3", "end of data"),
        lambda _: table(HEADER + GOOD + b'0.png,"x\n'),
        kept=1,
    ),
    Case("csv: a byte-order mark", "ready", (), lambda _: table(b"\xef\xbb\xbf" + HEADER + GOOD), kept=1),
    Case("csv: UTF-16", "ready", (), lambda _: table("file_name,caption\n0.png,fine\n".encode("utf-16")), kept=1),
    Case(
        "csv: UTF-16 without its mark",
        "failed",
        ("metadata.csv", "NUL"),
        lambda _: table("file_name,caption\n0.png,x\n".encode("utf-16-le")),
    ),
    Case(
        "csv: UTF-32",
        "failed",
        ("metadata.csv", "UTF-32"),
        lambda _: table("file_name,caption\n0.png,x\n".encode("utf-32")),
    ),
    Case(
        "csv: two columns of one name",
        "failed",
        ("metadata.csv", "caption"),
        lambda _: table(b"file_name,caption,caption\n"),
    ),
    Case(
        "csv: ten thousand columns",
        "failed",
        ("metadata.csv", "1000 columns"),
        lambda _: table(b"file_name,caption" + b",x" * 10_000 + b"\n"),
    ),
    Case("csv: a header of two megabytes", "failed", ("metadata.csv", "too long"), lambda _: table(b"x" * (2 << 20))),
    Case("csv: empty", "failed", ("metadata.csv",), lambda _: table(b"")),
    Case("csv: formulas", "ready", (), lambda _: table(HEADER + b"0.png,\"=cmd|' /C calc'!A0\"\n"), kept=1),
    Case("csv: markup", "ready", (), lambda _: table(HEADER + b"0.png,<script>alert(1)</script>\n"), kept=1),
    Case(
        "a caption file that is not UTF-8",
        "rejected",
        ("evil",),
        lambda _: tar_bytes(shard(**{"evil.png": picture(1), "evil.txt": b"\xff\xfe\xff"})),
        "x.tar",
        kept=1,
    ),
    Case(
        "a caption file of two megabytes",
        "rejected",
        ("evil",),
        lambda _: tar_bytes(shard(**{"evil.png": picture(1), "evil.txt": b"x" * (2 << 20)})),
        "x.tar",
        kept=1,
    ),
    Case(
        "json beside an image that is nested without end",
        "rejected",
        ("evil",),
        lambda _: tar_bytes(shard(**{"evil.png": picture(1), "evil.json": b"[" * 100_000})),
        "x.tar",
        kept=1,
    ),
    Case(
        "an image without its caption",
        "rejected",
        ("evil.png", "no caption"),
        lambda _: tar_bytes(shard(**{"evil.png": picture(1)})),
        "x.tar",
        kept=1,
    ),
    Case(
        "COCO nested without end",
        "failed",
        ("captions.json",),
        lambda _: zip_of({"captions.json": b'{"images": ' + b"[" * 100_000, "0.png": picture(0)}),
    ),
    Case("parquet cut short", "failed", ("x.parquet",), lambda _: PARQUET[:-20], "x.parquet"),
    Case(
        "parquet whose footer is longer than the file",
        "failed",
        ("x.parquet",),
        lambda _: PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1",
        "x.parquet",
    ),
    Case(
        "parquet with damaged pages",
        "failed",
        ("x.parquet",),
        lambda _: PARQUET[:4] + bytes(150) + PARQUET[154:],
        "x.parquet",
    ),
    Case(
        "parquet with an image that is none",
        "rejected",
        ("evil.png", "not an image"),
        lambda _: _parquet(
            image=[{"bytes": picture(0), "path": "0.png"}, {"bytes": b"x", "path": "evil.png"}], text=["a", "b"]
        ),
        "x.parquet",
        kept=1,
    ),
]
