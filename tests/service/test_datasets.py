"""Uploads, as a client sees them."""

import io
import zipfile

import pytest
from PIL import Image

from tests.service_fixtures import picture


def test_an_upload_is_answered_before_it_is_read(client, upload, image_zip, work):
    dataset = upload(image_zip(), name="six pictures")
    assert dataset["status"] == "ingesting"
    assert dataset["name"] == "six pictures"
    assert dataset["digest"].startswith("sha256:")
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert (ready["status"], ready["format"], ready["pair_count"], ready["rejected_count"]) == ("ready", "folder", 6, 0)


def test_a_broken_image_is_turned_away_and_its_neighbours_are_kept(client, upload, image_zip, work):
    dataset = upload(image_zip(6, broken=(2,)))
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert (ready["status"], ready["pair_count"], ready["rejected_count"]) == ("ready", 5, 1)
    (rejected,) = client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]
    assert rejected["key"] == "images/2.png"
    assert "images/2.png" in rejected["error"]


def test_pairs_come_in_the_order_of_the_upload_page_by_page(client, upload, image_zip, work):
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


def test_the_image_comes_back_as_it_came_and_as_a_thumbnail(client, upload, image_zip, work):
    content = image_zip(3)
    dataset = upload(content)
    work()
    url = f"/datasets/{dataset['id']}/pairs/images%2F1.png/image"
    answer = client.get(url)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert answer.content == archive.read("images/1.png")
    assert answer.headers["content-type"] == "image/png"
    small = client.get(url, params={"size": 16})

    assert Image.open(io.BytesIO(small.content)).size == (16, 16)


def test_a_deleted_dataset_is_gone(client, upload, image_zip, blobs):
    dataset = upload(image_zip(2))
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 204
    assert client.get(f"/datasets/{dataset['id']}").status_code == 404
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 404
    assert not blobs.exists(f"datasets/{dataset['id']}/upload")
    assert client.get("/datasets").json()["total"] == 0


def test_datasets_are_listed_newest_first(client, upload, image_zip):
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
def test_an_unreadable_upload_fails_with_its_reason(client, upload, work, content, filename, code, said):
    dataset = upload(content, filename)
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == code
    assert said in failed["error"]["message"]


def test_classes_become_captions_by_the_template_that_came_with_them(client, upload, work):
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


def test_a_missing_caption_column_is_named(client, upload, image_zip, work):
    dataset = upload(image_zip(2, columns=("file_name", "words")))
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert failed["error"]["code"] == "missing_column"
    assert "caption" in failed["error"]["message"]
    assert "words" in failed["error"]["message"]


def test_no_usable_pair_fails_the_dataset_and_keeps_the_reasons(client, upload, image_zip, work):
    dataset = upload(image_zip(2, broken=(0, 1)))
    work()
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "no_usable_pair")
    assert len(client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]) == 2


def test_embeddings_of_different_lengths_name_both_shapes(client, upload, embedding_zip, work):
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
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "not_multipart"),
        ({"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}}, 415, "not_multipart"),
        (
            {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "malformed_multipart",
        ),
    ],
)
def test_a_bad_upload_request_is_a_problem(client, problem_of, request_kwargs, status, code):
    problem = problem_of(client.post("/datasets", **request_kwargs))
    assert (problem["status"], problem["code"]) == (status, code)
    assert client.get("/datasets").json()["total"] == 0


def test_an_upload_over_the_limit_is_a_413_and_leaves_nothing(settings, problem_of):
    from fastapi.testclient import TestClient

    from service.app import create_app

    small = settings.model_copy(update={"ecif_max_upload_bytes": 1000})
    with TestClient(create_app(small)) as client:
        declared = client.post("/datasets", files={"file": ("x.zip", b"x" * 2000)})

        def undeclared():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
            for _ in range(20):
                yield b"x" * 100

        headers = {"content-type": "multipart/form-data; boundary=x"}
        streamed = client.post("/datasets", content=undeclared(), headers=headers)
    for answer in (declared, streamed):
        assert problem_of(answer)["code"] == "body_too_large"
        assert answer.status_code == 413
    assert [path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()] == []
