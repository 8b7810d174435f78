"""Tables that are broken or hostile: a row's fault stays with the row, and memory stays bounded."""

import csv
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readers.limits import Limits
from readers.pairs import ImagePair, RejectedPair
from readers.refusals import Rejection
from readers.upload import UploadReader
from tests.readers.conftest import ReadUpload, Refusal, Zipped

HEADER = b"file_name,caption\n"
GOOD = b"0.png,fine\n"


@pytest.fixture
def read_csv(zipped: Zipped, read: ReadUpload) -> ReadUpload:
    return lambda content, **how: read(zipped({"metadata.csv": content, "0.png": b"0"}), **how)


@pytest.fixture
def read_jsonl(zipped: Zipped, read: ReadUpload) -> ReadUpload:
    return lambda content, **how: read(zipped({"metadata.jsonl": content, "0.png": b"0"}), **how)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(read_csv: ReadUpload, encoding: str, newline: str) -> None:
    text = newline.join(["file_name,caption", '0.png,"一只猫 🐈, ""sleeping"""', "0.png,b", ""])
    found = read_csv(text.encode(encoding))
    assert [pair.caption for pair in found.pairs] == ['一只猫 🐈, "sleeping"', "b"]
    assert found.rejected == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"0.png,a\0b\n", "line 3: the caption holds a NUL character"),
        (b"0.png,caf\xe9\n", "line 3: the caption holds bytes that are not UTF-8"),
        (b"0.png\n", "line 3: 1 fields where the header names 2"),
        (b"0.png,a,b\n", "line 3: 3 fields where the header names 2"),
        (b'0.png,"a"b\n', "line 3: ',' expected after '\"'"),
        (b"0.png," + b"x" * 10_001 + b"\n", "line 3: the caption has 10001 characters; 10000 is the most"),
        (b"0.png," + b"x" * (1 << 21) + b"\n", "line 3: longer than 1048576 characters; is a quote left open?"),
    ],
)
def test_a_bad_csv_row_is_one_rejected_row(read_csv: ReadUpload, row: bytes, reason: str) -> None:
    found = read_csv(HEADER + GOOD + row + GOOD)
    assert found.keys == ["0.png", "0.png#2"]
    assert found.reasons == [f"row 2 of metadata.csv, {reason}"]


def test_what_a_rejected_row_shows_can_be_kept(read_csv: ReadUpload) -> None:
    found = read_csv(HEADER + b"a\0\xe9,b\xff\0\n")
    assert found.rejected == [
        RejectedPair(
            "a\ufffd\ufffd",
            "b\ufffd\ufffd",
            "row 1 of metadata.csv, line 2: no file a\ufffd\ufffd in the archive",
            Rejection.NO_IMAGE,
        )
    ]
    str(found.rejected).encode()


def test_an_open_quote_costs_what_it_swallows_and_no_more(read_csv: ReadUpload) -> None:
    found = read_csv(HEADER + b'0.png,"open\n' + GOOD * 200, limits=Limits(max_line_bytes=500))
    assert found.reasons == ["row 1 of metadata.csv, line 2: longer than 500 characters; is a quote left open?"]
    assert len(found.pairs) == 200 - 45


def test_an_open_quote_at_the_end(read_csv: ReadUpload) -> None:
    found = read_csv(HEADER + GOOD + b'0.png,"open\n')
    assert found.reasons == ["row 2 of metadata.csv, line 3: unexpected end of data"]


def test_a_row_of_several_lines_is_named_by_its_first(read_csv: ReadUpload) -> None:
    found = read_csv(HEADER + b'0.png,"two\nlines"\nx.png,"gone\n\n"\n' + GOOD)
    assert [pair.caption for pair in found.pairs] == ["two\nlines", "fine"]
    assert found.reasons == ["row 2 of metadata.csv, line 4: no file x.png in the archive"]


@pytest.mark.parametrize(
    ("content", "code", "wanted"),
    [
        (b"", "unreadable_table", "metadata.csv does not begin with a header"),
        (b"x" * (2 << 20), "unreadable_table", "the first line of metadata.csv is too long"),
        ("file_name,caption\n".encode("utf-16-le"), "unreadable_table", "the header of metadata.csv holds a NUL"),
        ("file_name,caption\n".encode("utf-32"), "unreadable_table", "UTF-32"),
        (b"file_name,caption,\xff\n", "unreadable_table", "holds bytes that are not UTF-8"),
        (b'file_name,"caption\n', "unreadable_table", "the header of metadata.csv: unexpected end of data"),
        (b"file_name,caption,label,label\n", "repeated_column", "metadata.csv has two columns named label"),
        (b"file_name,caption" + b",x" * 1000 + b"\n", "unreadable_table", "more than 1000 columns"),
        ("file_name,caption\na,b".encode("utf-16")[:-1], "unreadable_archive", "truncated data"),
    ],
)
def test_a_table_without_a_usable_header_refuses_the_upload(
    zipped: Zipped, refusal: Refusal, content: bytes, code: str, wanted: str
) -> None:
    refused = refusal(zipped({"metadata.csv": content, "0.png": b"0"}))
    assert refused.code == code
    assert wanted in refused.message


def test_pandas_index_column_is_kept_under_its_pandas_name(read_csv: ReadUpload) -> None:
    assert read_csv(b",file_name,caption\n7,0.png,x\n").pairs[0].extra == {"Unnamed: 0": "7"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"file_name": "0.png", "caption": "x", "w": NaN}', "NaN is not JSON"),
        (b'{"file_name": "0.png", "caption": "x", "w": -Infinity}', "-Infinity is not JSON"),
        (b'{"file_name": "0.png", "caption": "x", "w": 1e999}', "column w holds inf, which JSON has no word for"),
        (b'{"file_name": "0.png", "caption": "x", "caption": "y"}', "'caption' is given twice"),
        (b'{"file_name": "0.png", "caption": "\\ud800"}', "the caption holds half of a surrogate pair"),
        (b'{"file_name": "0.png", "caption": "x", "n": ["a\\u0000"]}', "column n holds a NUL character"),
        (b'{"file_name": "0.png", "caption": "x", "a\\u0000": 1}', "a column's name holds a NUL character"),
        (b'{"file_name": "0.png", "caption": "x", "n": {"\\udc00": 1}}', "column n holds half of a surrogate pair"),
        (b'{"file_name": "0.png", "caption": {"a": "x"}}', "the caption is an object, not text"),
        (b'{"file_name": "0.png", "caption": 7}', "the caption is a number, not text"),
        (b'{"file_name": 7, "caption": "x"}', "no file name"),
        (b'{"file_name": "0.png"}', "no caption"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"file_name": "0.png", "caption"', "not JSON: Expecting ':' delimiter at character 34"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"file_name": "0.png", "caption": "x", "n": ' + b"[" * 40 + b"]" * 40 + b"}", "column n is nested too deep"),
        (b'{"file_name": "0.png", "caption": "x", "n": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit (4300"),
        (b'{"file_name": "0.png", "caption": "' + b"x" * (1 << 20) + b'"}', "longer than 1048576 characters"),
        (b'{"file_name": "0.png", "caption": "caf\xe9"}', "the caption holds bytes that are not UTF-8"),
    ],
)
def test_a_bad_json_line_is_one_rejected_row(read_jsonl: ReadUpload, line: bytes, reason: str) -> None:
    good = b'{"file_name": "0.png", "caption": "fine"}\n'
    found = read_jsonl(good + line + b"\n" + good)
    assert found.keys == ["0.png", "0.png#2"]
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(f"row 2 of metadata.jsonl, line 2: {reason}")


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "a\0", None, True, [1]])
def test_a_key_that_cannot_be_one(read_jsonl: ReadUpload, key: object) -> None:
    found = read_jsonl(json.dumps({"file_name": "0.png", "caption": "x", "key": key}).encode())
    assert found.pairs == []
    assert "key" in found.reasons[0]


def test_a_whole_number_is_a_key(read_jsonl: ReadUpload) -> None:
    assert read_jsonl(b'{"file_name": "0.png", "caption": "x", "key": 12}').keys == ["12"]


@pytest.mark.parametrize(("start", "length"), [(b"0.png,", 100_000_000), (b'0.png,"', 20_000_000), (b"", 20_000_000)])
def test_a_line_of_a_hundred_megabytes_takes_little_memory(zipped: Zipped, start: bytes, length: int) -> None:
    path = zipped({"metadata.csv": HEADER + start + b"x" * length + b"\n" + GOOD, "0.png": b"0"}, zipfile.ZIP_STORED)
    tracemalloc.start()
    try:
        with UploadReader(path) as reader:
            items = list(reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [type(item) for item in items] == [RejectedPair, ImagePair]
    assert peak < 16 << 20


columns = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(columns.filter(lambda text: text.strip() != ""), columns), min_size=1, max_size=8))
def test_what_csv_wrote_is_what_comes_out(rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file_name", "caption", "note"])
    writer.writerows(("0.png", caption, note) for caption, note in rows)
    with TemporaryDirectory() as folder:
        path = Path(folder, "upload.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.csv", text.getvalue().encode())
            archive.writestr("0.png", b"0")
        with UploadReader(path) as reader:
            items = [item for item in reader if isinstance(item, ImagePair)]
    assert [(item.caption, item.extra["note"]) for item in items] == rows
