"""Uploads, as a client sees them."""

import io
import json
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from store.blobs import Blobs
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing, Upload, Work, picture


def test_an_upload_is_answered_before_it_is_read(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    dataset = upload(image_zip(), name="six pictures")
    assert dataset["status"] == "ingesting"
    assert dataset["name"] == "six pictures"
    assert dataset["digest"].startswith("sha256:")
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert (ready["status"], ready["format"], ready["pair_count"], ready["rejected_count"]) == ("ready", "folder", 6, 0)


def test_a_broken_image_is_turned_away_and_its_neighbours_are_kept(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    dataset = upload(image_zip(6, broken=(2,)))
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert (ready["status"], ready["pair_count"], ready["rejected_count"]) == ("ready", 5, 1)
    (rejected,) = client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]
    assert rejected["key"] == "images/2.png"
    assert "images/2.png" in rejected["error"]


def test_pairs_come_in_the_order_of_the_upload_page_by_page(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    dataset = upload(image_zip(7, broken=(0,)))
    work()
    keys, params = [], {"limit": 3}
    while True:
        answer = client.get(f"/datasets/{dataset['id']}/pairs", params=params)
        page = answer.json()
        keys += [item["key"] for item in page["items"]]
        assert page["total"] == 7
        if page["next_cursor"] is None:
            assert "link" not in answer.headers
            break
        assert 'rel="next"' in answer.headers["link"]
        params["cursor"] = page["next_cursor"]
    assert keys == [f"images/{i}.png" for i in range(7)]
    assert page["items"][-1]["extra"] == {"source": "site 6"}
    assert (page["items"][-1]["width"], page["items"][-1]["height"]) == (32, 32)


def test_the_image_comes_back_as_it_came_and_as_a_thumbnail(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    content = image_zip(3)
    dataset = upload(content)
    work()
    url = f"/datasets/{dataset['id']}/pairs/images%2F1.png/image"
    answer = client.get(url)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert answer.content == archive.read("images/1.png")
    assert answer.headers["content-type"] == "image/png"
    small = client.get(url, params={"size": 64})
    assert small.content == answer.content  # it is as small


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture
def photographs(upload: Upload, work: Work) -> tuple[str, dict[str, bytes]]:
    """A dataset of three images, 640 × 400, 200 × 100 and 300 × 600 pixels, the last with a second caption."""
    images = {"large.jpg": jpeg(640, 400), "small.jpg": jpeg(200, 100), "twice.jpg": jpeg(300, 600, seed=1)}
    rows = [{"file_name": name, "caption": ["one", "another"] if name == "twice.jpg" else "one"} for name in images]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content)
        archive.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    dataset = upload(out.getvalue())
    work()
    return dataset["id"], images


@pytest.mark.parametrize(
    ("key", "size", "shown"),
    [
        ("large.jpg", 8, (64, 40)),
        ("large.jpg", 64, (64, 40)),
        ("large.jpg", 255, (64, 40)),
        ("large.jpg", 256, (256, 160)),
        ("large.jpg", 639, (256, 160)),
        ("large.jpg", 640, None),
        ("small.jpg", 64, (64, 32)),
        ("small.jpg", 256, None),
        ("twice.jpg", 64, (32, 64)),
        ("twice.jpg#2", 256, (128, 256)),
    ],
)
def test_a_size_picks_the_thumbnail_that_fits(
    client: TestClient, photographs: tuple[str, dict[str, bytes]], key: str, size: int, shown: tuple[int, int] | None
) -> None:
    dataset, images = photographs
    answer = client.get(f"/datasets/{dataset}/pairs/{key.replace('#', '%23')}/image", params={"size": size})
    assert answer.headers["content-type"] == "image/jpeg"
    if shown is None:
        assert answer.content == images[key]
    else:
        assert Image.open(io.BytesIO(answer.content)).size == shown


def test_an_image_ingested_before_there_were_thumbnails_comes_as_it_came(
    client: TestClient, photographs: tuple[str, dict[str, bytes]], blobs: Blobs
) -> None:
    dataset, images = photographs
    (thumbnails,) = [name for name, _ in blobs.list(f"datasets/{dataset}") if name.endswith(".thumbnails")]
    blobs.delete(thumbnails)
    answer = client.get(f"/datasets/{dataset}/pairs/large.jpg/image", params={"size": 64})
    assert answer.content == images["large.jpg"]


def test_thumbnails_are_deleted_with_their_dataset(
    client: TestClient, photographs: tuple[str, dict[str, bytes]], blobs: Blobs
) -> None:
    dataset, _ = photographs
    client.delete(f"/datasets/{dataset}")
    assert not list(blobs.list(f"datasets/{dataset}"))
    assert client.get(f"/datasets/{dataset}/pairs/large.jpg/image", params={"size": 64}).status_code == 404


def test_a_process_that_serves_imports_no_image_decoder() -> None:
    program = "import sys, service.app; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_image_that_unpacks_to_much_is_shown_in_little_memory(
    client: TestClient, upload: Upload, work: Work
) -> None:
    """250 KB of PNG are 256 MB of pixels: the API passes on the bytes of thumbnails and nothing else."""
    bomb, archived = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (7900, 7900), (1, 2, 3, 255)).save(bomb, "PNG")
    with zipfile.ZipFile(archived, "w") as archive:
        archive.writestr("bomb.png", bomb.getvalue())
        archive.writestr("metadata.csv", "file_name,caption\nbomb.png,flat\n")
    dataset = upload(archived.getvalue())
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    url = f"/datasets/{dataset['id']}/pairs/bomb.png/image"
    answers = [client.get(url, params={"size": size}) for size in (64, 256)]
    assert [Image.open(io.BytesIO(answer.content)).size for answer in answers] == [(64, 64), (256, 256)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_a_deleted_dataset_is_gone(client: TestClient, upload: Upload, image_zip: ImageZip, blobs: Blobs) -> None:
    dataset = upload(image_zip(2))
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 204
    assert client.get(f"/datasets/{dataset['id']}").status_code == 404
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 404
    assert not blobs.exists(f"datasets/{dataset['id']}/upload")
    assert client.get("/datasets").json()["total"] == 0


def test_datasets_are_listed_newest_first(client: TestClient, upload: Upload, image_zip: ImageZip) -> None:
    ids = [upload(image_zip(1))["id"] for _ in range(3)]
    first = client.get("/datasets", params={"limit": 2}).json()
    second = client.get("/datasets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("content", "filename", "code", "said"),
    [
        (b"this is no archive", "data.zip", "unknown_format", "data.zip"),
        (b"PK\x03\x04 cut short", "data.zip", "unreadable_archive", "archive"),
    ],
)
def test_an_unreadable_upload_fails_with_its_reason(
    client: TestClient, upload: Upload, work: Work, content: bytes, filename: str, code: str, said: str
) -> None:
    dataset = upload(content, filename)
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == code
    assert said in failed["error"]["message"]


def test_classes_become_captions_by_the_template_that_came_with_them(
    client: TestClient, upload: Upload, work: Work
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for n, name in enumerate(("tabby_cat/1.png", "dog/1.png")):
            archive.writestr(name, picture(n))
    dataset = upload(content.getvalue(), caption_template="a drawing of a {label}")
    work()
    assert client.get(f"/datasets/{dataset['id']}").json()["format"] == "imagefolder"
    pairs = client.get(f"/datasets/{dataset['id']}/pairs").json()["items"]
    assert [pair["caption"] for pair in pairs] == ["a drawing of a tabby cat", "a drawing of a dog"]
    assert [pair["extra"] for pair in pairs] == [{"label": "tabby_cat"}, {"label": "dog"}]


def test_a_missing_caption_column_is_named(client: TestClient, upload: Upload, image_zip: ImageZip, work: Work) -> None:
    dataset = upload(image_zip(2, columns=("file_name", "words")))
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert failed["error"]["code"] == "missing_column"
    assert "caption" in failed["error"]["message"]
    assert "words" in failed["error"]["message"]


def test_no_usable_pair_fails_the_dataset_and_keeps_the_reasons(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    dataset = upload(image_zip(2, broken=(0, 1)))
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "no_usable_pair")
    assert len(client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]) == 2


def test_embeddings_of_different_lengths_name_both_shapes(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work
) -> None:
    dataset = upload(embedding_zip(10, text_rows=9))
    work()
    error = client.get(f"/datasets/{dataset['id']}").json()["error"]
    assert error["code"] == "embedding_shape_mismatch"
    assert "10" in error["message"]
    assert "9" in error["message"]


@pytest.mark.parametrize(
    ("request_kwargs", "status", "code"),
    [
        ({"files": {"file": ("x.zip", b"")}}, 422, "empty_file"),
        (
            {"files": {"file": ("x.zip", b"abc")}, "data": {"caption_template": "a photo"}},
            422,
            "bad_caption_template",
        ),
        ({"files": {"other": ("x.zip", b"abc")}}, 422, "unknown_field"),
        ({"data": {"file": "not a file"}, "files": {"name": (None, "x")}}, 422, "not_a_file"),
        ({"files": {"name": (None, "only a name")}}, 422, "missing_field"),
        ({"json": {}}, 422, "invalid_request"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}}, 415, "not_multipart"),
        (
            {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "malformed_multipart",
        ),
    ],
)
def test_a_bad_upload_request_is_a_problem(
    refusing: Refusing, problem_of: ProblemOf, request_kwargs: dict[str, Any], status: int, code: str
) -> None:
    problem = problem_of(refusing.client.post("/datasets", **request_kwargs))
    assert (problem["status"], problem["code"]) == (status, code)


def test_an_upload_over_the_limit_is_a_413_and_leaves_nothing(settings: Settings, problem_of: ProblemOf) -> None:
    from fastapi.testclient import TestClient

    from service.app import create_app

    small = settings.model_copy(update={"ecif_max_upload_bytes": 1000})
    with TestClient(create_app(small)) as client:
        declared = client.post("/datasets", files={"file": ("x.zip", b"x" * 2000)})

        def undeclared() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            for _ in range(20):
                yield b"x" * 100

        headers = {"content-type": "multipart/form-data; boundary=x"}
        streamed = client.post("/datasets", content=undeclared(), headers=headers)
    for answer in (declared, streamed):
        assert problem_of(answer)["code"] == "body_too_large"
        assert answer.status_code == 413
    assert [path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()] == []
