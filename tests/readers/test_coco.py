"""COCO captions, laid out as `annotations/captions_val2017.json` beside `val2017/`."""

import json
from typing import Any

import pytest

from readers.formats.registry import Format
from readers.limits import Limits
from readers.pairs import ImagePair
from tests.readers.conftest import ReadUpload, Refusal, Zipped


def captions(images: list[dict[str, Any]], annotations: list[Any], **more: Any) -> bytes:
    about = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}
    return json.dumps(about | more).encode()


def image(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640} | more


def annotation(number: int, image_id: Any, caption: Any) -> dict[str, Any]:
    return {"image_id": image_id, "id": number, "caption": caption}


IMAGES = {f"val2017/{number:012d}.jpg": b"image %d" % number for number in (1, 2, 3)}
# As in the real files, the captions of one image do not stand together.
ANNOTATIONS = [
    annotation(11, 2, "a dog"),
    annotation(12, 1, "a cat"),
    annotation(13, 2, "a brown dog"),
    annotation(14, 1, "a grey cat"),
]


def test_one_pair_a_caption_image_by_image(zipped: Zipped, read: ReadUpload) -> None:
    told = captions([image(1), image(2)], ANNOTATIONS)
    found = read(zipped({"annotations/captions_val2017.json": told, **IMAGES}))
    assert (found.format, found.rejected, found.unreferenced) == (Format.COCO, [], 1)
    size: dict[str, Any] = {"height": 480, "width": 640}
    one, two = f"{1:012d}.jpg", f"{2:012d}.jpg"
    assert found.pairs == [
        ImagePair(one, "a cat", b"image 1", size | {"image_id": 1, "annotation_id": 12}),
        ImagePair(f"{one}#2", "a grey cat", b"image 1", size | {"image_id": 1, "annotation_id": 14}, further=True),
        ImagePair(two, "a dog", b"image 2", size | {"image_id": 2, "annotation_id": 11}),
        ImagePair(f"{two}#2", "a brown dog", b"image 2", size | {"image_id": 2, "annotation_id": 13}, further=True),
    ]
    assert found.repeated_keys == 0


def test_captions_are_chosen_over_boxes_of_the_same_images(zipped: Zipped, read: ReadUpload) -> None:
    boxes = captions([image(1)], [{"id": 1, "image_id": 1, "bbox": [1.5, 2, 3, 4], "category_id": 3}])
    told = captions([image(1)], [annotation(1, 1, "a cat")])
    found = read(zipped({"annotations/instances.json": boxes, "annotations/captions.json": told, **IMAGES}))
    assert [pair.caption for pair in found.pairs] == ["a cat"]


def test_train_and_val_in_one_archive(zipped: Zipped, read: ReadUpload) -> None:
    splits = {"a": 1, "b": 2}
    files = {f"captions_{split}.json": captions([image(n)], [annotation(n, n, split)]) for split, n in splits.items()}
    assert [pair.caption for pair in read(zipped(files | IMAGES)).pairs] == ["a", "b"]


@pytest.mark.parametrize("place", ["{}", "annotations/{}", "deep/er/{}", "images/val2017/{}"])
def test_an_image_is_found_wherever_it_lies(zipped: Zipped, read: ReadUpload, place: str) -> None:
    files = {place.format(image(1)["file_name"]): b"found"}
    found = read(zipped({"annotations/c.json": captions([image(1)], [annotation(1, 1, "x")]), **files}))
    assert [pair.image for pair in found.pairs] == [b"found"]


def test_what_does_not_fit_together_is_named(zipped: Zipped, read: ReadUpload) -> None:
    images = [image(1), image(2), image(9), image(3, file_name=None)]
    told = [*ANNOTATIONS[:1], annotation(1, 77, "nobody's"), annotation(2, 9, "gone"), annotation(3, 2, " ")]
    found = read(zipped({"c.json": captions(images, told), **IMAGES}))
    assert [pair.caption for pair in found.pairs] == ["a dog"]
    assert found.reasons == [
        "annotation 1 of c.json: there is no image 77",
        "image 1 of c.json: 000000000001.jpg has no annotation",
        "annotation 3 of c.json: the caption is empty",
        "image 9 of c.json: no file 000000000009.jpg in the archive",
        "image 3 of c.json: no file None in the archive",
    ]
    assert [pair.rejection.value for pair in found.rejected] == [
        "no_image",
        "no_caption",
        "no_caption",
        "no_image",
        "no_image",
    ]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (captions([image(1)], ANNOTATIONS)[:-20], "unreadable_table", "c.json is not JSON"),
        (captions([image(1)], []), "missing_column", "no annotation of any of its 1 images"),
        (captions([image(1)], [3]), "unreadable_table", "annotations holds what is no object"),
        (captions([image(1)], [annotation(1, 1, "x")]) + b" " * 2000, "too_large", "2000 is the most"),
        (b'{"images": [{"file_name": ' + b"[" * 200_000, "unreadable_table", "c.json is not JSON"),
    ],
)
def test_a_broken_document_refuses_the_upload(
    zipped: Zipped, refusal: Refusal, content: bytes, code: str, said: str
) -> None:
    most = 2000 if code == "too_large" else 1 << 20
    refused = refusal(zipped({"c.json": content, **IMAGES}), limits=Limits(max_json_bytes=most), format="coco")
    assert (refused.code, said in refused.message) == (code, True), refused.message


def test_a_document_nested_without_end_is_no_coco(zipped: Zipped, read: ReadUpload) -> None:
    deep = b'{"images": [{"id": ' + b"[" * 2_000_000
    found = read(zipped({"a.json": deep, "b.jpg": b"B", "b.txt": b"b"}))
    assert (found.format, found.keys) == (Format.WEBDATASET, ["b"])
