"""What an upload is, and what is said about one that is nothing of ours."""

import io
import lzma
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from readers.formats.registry import Format
from tests.readers.conftest import Npy, ReadUpload, Refusal, Tarred, WriteUpload, Zipped

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_format_is_a_name(tarred: Tarred, read: ReadUpload) -> None:
    format_ = read(tarred({"a.jpg": b"A", "a.txt": b"a"}), filename="x.tar").format
    assert (format_, str(format_)) == ("webdataset", "webdataset")


def test_the_name_of_a_file_decides_nothing(zipped: Zipped, read: ReadUpload) -> None:
    for name in ("upload.tar.gz", "blob.bin"):
        assert read(zipped({"metadata.csv": b"file_name,caption\n"}), filename=name).format is Format.FOLDER


def test_a_client_may_choose_where_two_fit(tarred: Tarred, read: ReadUpload) -> None:
    both = tarred({"metadata.csv": b"file_name,caption\na.jpg,from csv\n", "a.jpg": b"A", "a.txt": b"from txt"})
    assert read(both).pairs[0].caption == "from csv"
    assert read(both, format="webdataset").pairs[0].caption == "from txt"


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (
            "yaml",
            "there is no format yaml; there are: folder, open_clip_csv, webdataset, coco, croissant, imagefolder,",
        ),
        ("folder", "this upload cannot be read as folder: the archive holds no metadata.csv"),
        ("npy", "this upload cannot be read as npy: the archive holds no image.npy"),
        ("safetensors", "the archive holds no .safetensors file"),
        ("parquet", "the archive holds no .parquet file"),
        ("open_clip_csv", "the archive holds no table of filepath and title"),
    ],
)
def test_a_chosen_format_that_does_not_fit(tarred: Tarred, refusal: Refusal, chosen: str, wanted: str) -> None:
    refused = refusal(tarred({"a.jpg": b"A", "a.txt": b"a"}), format=chosen)
    assert (refused.code, refused.param) == ("unknown_format", "format")
    assert wanted in refused.message


@pytest.mark.parametrize(
    ("content", "filename", "wanted"),
    [
        (b"", "a.zip", "the file is empty"),
        (b"file_name,caption\na,b\n", "metadata.csv", "text named metadata.csv; a table goes into a zip or a tar"),
        (PNG + bytes(100), "a.png", "one image alone"),
        (b"\x93NUMPY" + bytes(100), "image.npy", "put image.npy and text.npy into a zip"),
        (lzma.compress(b"x"), "a.tar.xz", "compress the tar with gzip or zstd"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a.7z", "a 7z archive"),
        (b"Rar!\x1a\7\1\0", "a.rar", "a RAR archive"),
        (b"ARROW1\0\0", "a.arrow", "write it as parquet"),
        (b"\0\1\2\3\4\5\6\7\x08", None, "beginning with the bytes 00 01 02 03 04 05 06 07"),
    ],
)
def test_what_is_no_dataset(
    upload: WriteUpload, refusal: Refusal, content: bytes, filename: str | None, wanted: str
) -> None:
    refused = refusal(upload(content), filename=filename)
    assert refused.code == "unknown_format"
    assert wanted in refused.message
    assert "understood are: a zip or tar" in refused.message


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".pickle"])
def test_pickles_are_refused_by_name(zipped: Zipped, refusal: Refusal, npy: Npy, suffix: str) -> None:
    content = {"image.npy": npy(np.ones((1, 1))), "text.npy": npy(np.ones((1, 1)))}
    refused = refusal(zipped(content), filename=f"embeddings{suffix.upper()}")
    assert refused.code == "pickle_refused"
    assert f"a {suffix} file may hold pickled objects, which can run code; save" in refused.message
    assert ".safetensors" in refused.message


def test_pickles_are_refused_by_content(upload: WriteUpload, zipped: Zipped, refusal: Refusal) -> None:
    assert refusal(upload(pickle.dumps([1]))).code == "pickle_refused"
    assert refusal(upload(b"\1\2\3\4"), filename="pytorch_model.bin").code == "pickle_refused"
    torch_save = zipped({"archive/data.pkl": b"\x80\2.", "archive/data/0": b"x", "archive/version": b"3"})
    assert refusal(torch_save).code == "pickle_refused"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, "an archive with no files"),
        (
            {"a.jpg": b"A", "b.jpg": b"B"},
            "an archive with 2 .jpg, but nothing that says what they show: no metadata.csv",
        ),
        ({"a.doc": b"", "LICENSE": b""}, "an archive with 1 .doc, 1 without suffix"),
        ({"a.tar": b"", "b.zip": b""}, "an archive of 1 .tar with no files"),
        ({"b.zip": b""}, "only webdataset's .tar shards, .gz, .bz2 and .zst among them, are opened"),
        ({"image.npy": b""}, "an archive with 1 .npy"),
        ({"other.csv": b"a,b\n" + b"x" * (2 << 20)}, "an archive with 1 .csv"),
    ],
)
def test_an_archive_that_is_no_dataset(zipped: Zipped, refusal: Refusal, files: dict[str, Any], wanted: str) -> None:
    refused = refusal(zipped(files))
    assert refused.code == "unknown_format"
    assert wanted in refused.message


def test_a_nested_archive_is_never_opened(zipped: Zipped, read: ReadUpload) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("metadata.csv", "file_name,caption\n")
    found = read(zipped({"metadata.csv": b"file_name,caption\ninner.zip,x\n", "inner.zip": inner.getvalue()}))
    assert found.pairs[0].image == inner.getvalue()
