"""A folder of images with tables of metadata, in any archive."""

import io
import json
import tarfile
import unicodedata
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import ImagePair
from tests.readers.conftest import ReadUpload, Refusal, Tar, Tarred, WriteUpload, Zipped

CSV = b"file_name,caption,label,note\nimages/0.png,a cat,3,x\nimages/1.png,a dog,4,\n"
IMAGES = {"images/0.png": b"cat bytes", "images/1.png": b"dog bytes"}


def parquet_bytes(table: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_a_csv_in_a_zip(zipped: Zipped, read: ReadUpload) -> None:
    found = read(zipped({"metadata.csv": CSV, **IMAGES}))
    assert (found.format, found.kind, found.total, found.rejected) == (Format.FOLDER, "images", None, [])
    assert found.pairs == [
        ImagePair("images/0.png", "a cat", b"cat bytes", {"label": "3", "note": "x"}),
        ImagePair("images/1.png", "a dog", b"dog bytes", {"label": "4", "note": ""}),
    ]


def test_stored_zip(zipped: Zipped, read: ReadUpload) -> None:
    assert read(zipped({"metadata.csv": CSV, **IMAGES}, zipfile.ZIP_STORED)).pairs[1].image == b"dog bytes"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar(tarred: Tarred, read: ReadUpload, mode: str, tar_format: int) -> None:
    found = read(tarred({"metadata.csv": CSV, **IMAGES}, mode, tar_format=tar_format))
    assert [pair.image for pair in found.pairs] == [b"cat bytes", b"dog bytes"]


def test_a_tar_in_zstd(upload: WriteUpload, tar: Tar, read: ReadUpload) -> None:
    packed = pa.compress(tar({"metadata.csv": CSV, **IMAGES}), codec="zstd", asbytes=True)
    assert read(upload(packed)).keys == ["images/0.png", "images/1.png"]


def test_jsonl_keeps_types(zipped: Zipped, read: ReadUpload) -> None:
    rows = [
        {"file_name": "0.png", "text": "a cat", "label": 3, "tags": ["a", {"b": None}], "w": 0.5},
        {"file_name": "1.png", "text": "a dog"},
    ]
    content = "\n\n".join(map(json.dumps, rows)).encode()
    found = read(zipped({"d/metadata.jsonl": content, "d/0.png": b"0", "d/1.png": b"1"}))
    assert found.pairs[0].extra == {"label": 3, "tags": ["a", {"b": None}], "w": 0.5}
    assert found.pairs[1] == ImagePair("1.png", "a dog", b"1", {})


def test_parquet_knows_its_total_and_says_what_it_cannot_carry(tarred: Tarred, read: ReadUpload) -> None:
    table = pa.table(
        {
            "file_name": ["0.png", "1.png"],
            "caption": ["a cat", None],
            "score": [float("nan"), 1.0],
            "when": pa.array([0, 1], pa.timestamp("ns")),
            "blob": pa.array([b"1", b"2"]),
        }
    )
    found = read(tarred({"metadata.parquet": parquet_bytes(table), "0.png": b"0", "1.png": b"1"}))
    assert found.total == 2
    assert found.ignored_columns == ("blob",)
    assert found.pairs == [ImagePair("0.png", "a cat", b"0", {"score": None, "when": "1970-01-01 00:00:00.000000000"})]
    assert found.reasons == ["row 2 of metadata.parquet: no caption"]


def test_parquet_row_that_is_not_utf8_is_one_rejected_row(zipped: Zipped, read: ReadUpload) -> None:
    captions = pa.array([b"fine", b"\xff\xfe", b"fine too"]).view(pa.string())
    table = pa.table({"file_name": ["0.png"] * 3, "caption": captions})
    found = read(zipped({"metadata.parquet": parquet_bytes(table), "0.png": b"0"}))
    assert [pair.caption for pair in found.pairs] == ["fine", "fine too"]
    assert found.reasons == ["row 2 of metadata.parquet: it holds bytes that are not UTF-8"]


def test_several_tables_each_relative_to_itself_and_repeats_numbered(zipped: Zipped, read: ReadUpload) -> None:
    row = b"file_name,caption\n0.png,one\n0.png,two\n"
    found = read(
        zipped(
            {
                "data/train/metadata.csv": row,
                "data/train/0.png": b"train",
                "data/test/metadata.csv": row,
                "data/test/0.png": b"test",
            }
        )
    )
    assert found.keys == ["0.png", "0.png#2", "0.png#3", "0.png#4"]
    assert [pair.image for pair in found.pairs] == [b"train", b"train", b"test", b"test"]


def test_two_tables_in_one_folder_are_ambiguous(zipped: Zipped, refusal: Refusal) -> None:
    refused = refusal(zipped({"metadata.csv": CSV, "metadata.jsonl": b"{}", **IMAGES}))
    assert refused.code == "ambiguous_upload"
    assert "metadata.csv and metadata.jsonl lie in one folder" in refused.message


def test_a_key_column_keeps_the_file_name(zipped: Zipped, read: ReadUpload) -> None:
    found = read(zipped({"metadata.csv": b"key,file_name,text\nk1,0.png,a cat\n", "0.png": b"0"}))
    assert found.pairs == [ImagePair("k1", "a cat", b"0", {"file_name": "0.png"})]


def test_a_generated_key_never_takes_a_given_one(zipped: Zipped, read: ReadUpload) -> None:
    rows = b"key,file_name,text\na#2,0.png,x\na,0.png,x\na,0.png,x\na,0.png,x\n"
    assert read(zipped({"metadata.csv": rows, "0.png": b"0"})).keys == ["a#2", "a", "a#3", "a#4"]


def test_caption_wins_over_text_which_stays(zipped: Zipped, read: ReadUpload) -> None:
    found = read(zipped({"metadata.csv": b"file_name,text,caption\n0.png,t,c\n", "0.png": b"0"}))
    assert (found.pairs[0].caption, found.pairs[0].extra) == ("c", {"text": "t"})


def test_rows_turned_away_are_named(zipped: Zipped, read: ReadUpload) -> None:
    rows = b"file_name,caption\nimages/7.png,a\n0.png,\n0.png,  \n,b\n../0.png,c\n/etc/passwd,d\n0.png,ok\n"
    found = read(zipped({"metadata.csv": rows, "0.png": b"0"}))
    assert found.keys == ["0.png"]
    assert found.reasons == [
        "row 1 of metadata.csv, line 2: no file images/7.png in the archive",
        "row 2 of metadata.csv, line 3: the caption is empty",
        "row 3 of metadata.csv, line 4: the caption is empty",
        "row 4 of metadata.csv, line 5: no file name",
        "row 5 of metadata.csv, line 6: no file ../0.png in the archive",
        "row 6 of metadata.csv, line 7: no file /etc/passwd in the archive",
    ]
    assert (found.rejected[0].key, found.rejected[0].caption) == ("images/7.png", "a")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("metadata.csv", b"file_name,label\n0.png,1\n", "metadata.csv has no column caption or text"),
        ("a/metadata.csv", b"name,caption\n0.png,1\n", "a/metadata.csv has no column file_name"),
        ("metadata.jsonl", b'{"file_name": "0.png", "title": "x"}\n', "no column caption or text"),
    ],
)
def test_a_missing_column_names_the_table_and_what_it_has(
    zipped: Zipped, refusal: Refusal, name: str, content: bytes, wanted: str
) -> None:
    refused = refusal(zipped({name: content, "0.png": b"0"}))
    assert refused.code == "missing_column"
    assert wanted in refused.message
    assert "its columns are: " in refused.message


def test_desktop_litter_is_ignored_and_unnamed_images_are_counted(zipped: Zipped, read: ReadUpload) -> None:
    litter = {"__MACOSX/images/._0.png": b"x", "images/._1.png": b"x", ".DS_Store": b"x", "Thumbs.db": b"x"}
    found = read(zipped({"metadata.csv": CSV, **IMAGES, **litter, "images/9.JPG": b"9", "README.md": b"r"}))
    assert found.unreferenced == 1


def test_an_image_larger_than_allowed_is_one_rejected_pair(zipped: Zipped, read: ReadUpload) -> None:
    found = read(
        zipped({"metadata.csv": CSV, **IMAGES, "images/1.png": bytes(101)}), limits=Limits(max_member_bytes=100)
    )
    assert found.keys == ["images/0.png"]
    assert found.reasons == ["row 2 of metadata.csv, line 3: images/1.png has 101 bytes; 100 is the most"]


def test_names_as_macos_and_windows_write_them(zipped: Zipped, read: ReadUpload) -> None:
    rows = "file_name,caption\ncafé.png,a\nsub\\1.png,b\n./sub/1.png,c\n".encode()
    decomposed = unicodedata.normalize("NFD", "café.png")
    found = read(zipped({"metadata.csv": rows, decomposed: b"0", "sub/1.png": b"1"}))
    assert [pair.image for pair in found.pairs] == [b"0", b"1", b"1"]


def test_a_hostile_name_is_looked_up_quickly(zipped: Zipped, read: ReadUpload) -> None:
    marks = "\u0315\u0300" * 60_000
    found = read(zipped({"metadata.csv": f"file_name,caption\n{marks},x\n".encode()}))
    assert found.reasons[0].startswith("row 1 of metadata.csv, line 2: no file ")


def test_of_two_members_of_one_name_the_last_counts(tar: Tar, upload: WriteUpload, read: ReadUpload) -> None:
    both = tar({"metadata.csv": b"file_name,caption\n0.png,x\n", "0.png": b"old"})[:2560] + tar({"0.png": b"new"})
    assert read(upload(both)).pairs[0].image == b"new"


@pytest.mark.parametrize("separator", ["\t", ","])
def test_open_clip_csv_beside_its_images(zipped: Zipped, read: ReadUpload, separator: str) -> None:
    rows = [["filepath", "title", "label"], ["images/0.png", "a cat", "3"], ["images/1.png", "a dog", "4"]]
    table = "\n".join(separator.join(row) for row in rows).encode()
    found = read(zipped({"train.csv": table, **IMAGES}))
    assert found.format is Format.OPEN_CLIP
    assert found.pairs[1] == ImagePair("images/1.png", "a dog", b"dog bytes", {"label": "4"})


def test_reading_again_starts_again(zipped: Zipped) -> None:
    from readers.upload import UploadReader

    with UploadReader(zipped({"metadata.csv": CSV, **IMAGES})) as reader:
        assert list(reader) == list(reader)
