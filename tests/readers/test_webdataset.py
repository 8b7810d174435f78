"""Captions in files of their own: webdataset and img2dataset tars, and plain folders."""

import json
from typing import Any

import pytest

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import ImagePair
from tests.readers.conftest import ReadUpload, Tar, Tarred, WriteUpload, Zipped, tar_bytes


def test_a_webdataset_tar_in_archive_order(tarred: Tarred, read: ReadUpload) -> None:
    found = read(
        tarred(
            {
                "b.jpg": b"B",
                "b.txt": b"a dog\n",
                "a.cls": b"3",
                "a.PNG": b"A",
                "a.txt": b"a cat",
                "d/a.webp": b"D",
                "d/a.txt": "été".encode("utf-8-sig"),
            }
        )
    )
    assert (found.format, found.kind, found.total, found.rejected) == (Format.WEBDATASET, "images", 3, [])
    assert found.pairs == [
        ImagePair("b", "a dog", b"B", {}),
        ImagePair("a", "a cat", b"A", {}),
        ImagePair("d/a", "été", b"D", {}),
    ]


def test_the_key_ends_at_the_first_dot(tarred: Tarred, read: ReadUpload) -> None:
    files = {"v1.0/x.jpg": b"X", "v1.0/x.txt": b"x", "y.seg.png": b"mask", "y.jpg": b"Y", "y.txt": b"y"}
    assert read(tarred(files)).keys == ["v1.0/x", "y"]


def test_an_img2dataset_tar(tarred: Tarred, read: ReadUpload) -> None:
    about = {"caption": "a cat", "key": "000000007", "url": "http://x", "width": 512, "status": "success"}
    files = {"000/7.jpg": b"J", "000/7.txt": b"a cat", "000/7.json": json.dumps(about).encode()}
    found = read(tarred(files))
    extra: dict[str, Any] = {"url": "http://x", "width": 512, "status": "success"}
    assert found.pairs == [ImagePair("000000007", "a cat", b"J", extra)]


def test_a_pair_knows_its_tar_and_its_name_in_it(zipped: Zipped, tarred: Tarred, read: ReadUpload) -> None:
    about = b'{"caption": "a cat", "key": "mine"}'
    files = {"d/7.jpg": b"J", "d/7.json": about, "8.jpg": b"K", "8.txt": b"a dog"}
    assert [pair.sample for pair in read(tarred(files)).pairs] == [("", "d/7"), ("", "8")]
    shards = read(zipped({"train/00000.tar": tar_bytes(files), "train/00001.tar": tar_bytes(files)}))
    assert shards.keys == ["mine", "8", "mine#2", "8#2"]
    assert [pair.sample for pair in shards.pairs] == [
        (f"train/0000{n}.tar", key) for n in range(2) for key in ("d/7", "8")
    ]


def test_json_alone_gives_the_caption(tarred: Tarred, read: ReadUpload) -> None:
    found = read(tarred({"a.jpg": b"A", "a.json": b'{"text": "a cat", "label": 3}'}))
    assert found.pairs == [ImagePair("a", "a cat", b"A", {"label": 3})]


def test_a_caption_that_differs_in_the_json_is_kept(tarred: Tarred, read: ReadUpload) -> None:
    found = read(tarred({"a.jpg": b"A", "a.txt": b"short", "a.json": b'{"caption": "long"}'}))
    assert (found.pairs[0].caption, found.pairs[0].extra) == ("short", {"caption": "long"})


def test_halves_are_rejected_by_name(tarred: Tarred, read: ReadUpload) -> None:
    found = read(tarred({"a.jpg": b"A", "b.txt": b"b", "c.jpg": b"C", "c.txt": b"c", "d.json": b"{}"}))
    assert found.keys == ["c"]
    assert found.reasons == [
        "a.jpg: no caption (.txt or .json) beside it",
        "b.txt: no image beside it",
        "d.json: no image beside it",
    ]
    assert [pair.key for pair in found.rejected] == ["a", "b", "d"]


def test_a_tar_in_another_order_is_still_paired(tarred: Tarred, read: ReadUpload) -> None:
    files = {"a.jpg": b"A", "b.jpg": b"B", "c.jpg": b"C", "c.txt": b"c", "a.txt": b"a", "b.json": b'{"caption": "b"}'}
    found = read(tarred(files))
    assert {pair.key: (pair.caption, pair.image) for pair in found.pairs} == {
        "a": ("a", b"A"),
        "b": ("b", b"B"),
        "c": ("c", b"C"),
    }
    assert found.rejected == []


def test_no_more_halves_wait_than_may(tarred: Tarred, read: ReadUpload) -> None:
    files = {"a.jpg": b"A", "b.jpg": b"B", "c.jpg": b"C", "a.txt": b"a", "b.txt": b"b", "c.txt": b"c"}
    found = read(tarred(files), limits=Limits(max_waiting=2))
    assert "a.jpg: no caption (.txt or .json) beside it" in found.reasons
    assert len(found.rejected) + 2 * len(found.pairs) == 6


def test_two_images_of_one_name_are_never_merged(tarred: Tarred, read: ReadUpload) -> None:
    found = read(tarred({"a.jpg": b"1", "a.png": b"2", "a.txt": b"a"}))
    assert found.pairs == [ImagePair("a", "a", b"2", {})]
    assert found.reasons == ["a.jpg: no caption (.txt or .json) beside it"]


def test_joined_shards_whose_keys_repeat(tar: Tar, upload: WriteUpload, read: ReadUpload) -> None:
    shards = [tar({"0.jpg": image, "0.txt": b"x"}) for image in (b"1", b"2", b"3")]
    found = read(upload(b"".join(shards)))
    assert [(pair.key, pair.image) for pair in found.pairs] == [("0", b"1"), ("0#2", b"2"), ("0#3", b"3")]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.txt": b"\xff\xe9"}, "a: a.txt is not UTF-8"),
        ({"a.txt": b" \n"}, "a: the caption is empty"),
        ({"a.txt": b"a\0"}, "a: the caption holds a NUL character"),
        ({"a.txt": b"x" * (2 << 20)}, "a: a.txt has 2097152 bytes; 1048576 is the most"),
        ({"a.json": b"{"}, "a: its .json: not JSON"),
        ({"a.json": b"[" * 100_000}, "a: its .json: nested too deep"),
        ({"a.json": b'{"caption": "x", "w": NaN}'}, "a: its .json: NaN is not JSON"),
        ({"a.json": b'{"title": "x"}'}, "a: no caption"),
        ({"a.json": b'{"caption": "x", "key": ""}'}, "a: no key"),
    ],
)
def test_a_caption_that_cannot_be_read_is_one_rejected_pair(
    tarred: Tarred, read: ReadUpload, files: dict[str, bytes], reason: str
) -> None:
    found = read(tarred({"a.jpg": b"A", **files, "b.jpg": b"B", "b.txt": b"fine"}))
    assert found.keys == ["b"]
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(reason)


def test_a_large_image_is_one_rejected_pair(tarred: Tarred, read: ReadUpload) -> None:
    found = read(tarred({"a.jpg": bytes(11), "a.txt": b"a"}), limits=Limits(max_member_bytes=10))
    assert found.reasons == ["a: a.jpg has 11 bytes; 10 is the most"]


def test_a_zip_of_images_and_captions(zipped: Zipped, read: ReadUpload) -> None:
    assert read(zipped({"x/a.jpg": b"A", "x/a.txt": b"a"})).keys == ["x/a"]


def test_shards_are_read_in_the_order_of_their_numbers(zipped: Zipped, read: ReadUpload) -> None:
    shards = {f"x/{n}.tar": tar_bytes({f"{n}.png": b"image", f"{n}.txt": b"x"}) for n in (10, 9, 2, 1)}
    assert read(zipped(shards)).keys == ["1", "2", "9", "10"]
