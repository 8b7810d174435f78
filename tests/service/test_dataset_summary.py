"""What ingest counts: duplicates by kind and how to page through them, rejections by reason, captions, labels."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import ProblemOf, Upload, Work, picture

Ingested = Callable[..., dict[str, Any]]
Duplicates = Callable[[dict[str, Any], str], list[tuple[str, str]]]


def as_bmp(content: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(content)).save(out, "BMP")
    return out.getvalue()


def zipped(rows: Any, images: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("metadata.jsonl", "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        for name, content in images.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def ingested(client: TestClient, upload: Upload, work: Work) -> Ingested:
    """Upload, ingest and look at a dataset."""

    def look(content: bytes, filename: str = "data.zip") -> dict[str, Any]:
        dataset = upload(content, filename)
        work()
        ingested = client.get(f"/datasets/{dataset['id']}").json()
        assert ingested["status"] == "ready", ingested["error"]
        return ingested

    return look


@pytest.fixture
def duplicates(client: TestClient) -> Duplicates:
    """All pages of the duplicates of a kind, two a page: (key, key of the first)."""

    def walk(dataset: dict[str, Any], kind: str) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        params: dict[str, Any] = {"duplicate": kind, "limit": 2}
        while True:
            page = client.get(f"/datasets/{dataset['id']}/pairs", params=params).json()
            rows += [(item["key"], item["duplicate_of"]) for item in page["items"]]
            if page["next_cursor"] is None:
                assert page["total"] == len(rows)
                return rows
            params["cursor"] = page["next_cursor"]

    return walk


IMAGES = {"a.png": picture(0), "b.png": picture(1), "same.png": picture(0), "as.bmp": as_bmp(picture(0))}
ROWS: list[Any] = [
    {"file_name": "a.png", "caption": "a cat", "label": "cat"},
    {"file_name": "broken.png", "caption": "x"},
    {"file_name": "b.png", "captions": ["a dog", "a cat"], "caption": None, "label": "dog"},
    {"file_name": "as.bmp", "caption": "a bird", "label": 3},
    {"file_name": "same.png", "caption": "a cat", "label": "cat"},
    {"file_name": "b.png", "caption": " "},
    {"file_name": "gone.png", "caption": "x"},
    "no json",
]


def test_a_summary_counts_what_was_found(ingested: Ingested) -> None:
    rows = [{name: value for name, value in row.items() if value} if isinstance(row, dict) else row for row in ROWS]
    rows[2]["caption"] = rows[2].pop("captions")
    dataset = ingested(zipped(rows, IMAGES | {"broken.png": b"no image", "extra.png": picture(9)}))
    assert (dataset["pair_count"], dataset["rejected_count"]) == (5, 4)
    assert dataset["summary"] == {
        "rejected": {"no_caption": 1, "no_image": 1, "unreadable_image": 1, "unreadable_row": 1},
        "duplicates": {
            "image": {"groups": 1, "pairs": 2},
            "pixels": {"groups": 1, "pairs": 3},
            "caption": {"groups": 1, "pairs": 3},
        },
        "captions": {
            "count": 5,
            "distinct": 3,
            "mean_characters": 5.2,
            "longest_characters": 6,
            "further": 1,
        },
        "labels": {"cat": 2, "dog": 2, "3": 1},
        "repeated_keys": 0,
        "unreferenced_images": 1,
        "missing_shards": [],
        "left_out": {},
    }


def test_duplicates_are_paged_with_their_equals_beside_them(ingested: Ingested, duplicates: Duplicates) -> None:
    names = [f"{n}.png" for n in range(7)]
    rows = [{"file_name": name, "caption": f"caption {n // 3}"} for n, name in enumerate(names)]
    dataset = ingested(zipped(rows, {name: picture(n % 3) for n, name in enumerate(names)}))
    of_three = [(0, 0), (3, 0), (6, 0), (1, 1), (4, 1), (2, 2), (5, 2)]
    wanted = [(f"{n}.png", f"{first}.png") for n, first in of_three]
    assert duplicates(dataset, "image") == duplicates(dataset, "pixels") == wanted
    assert duplicates(dataset, "caption") == [(f"{n}.png", f"{n // 3 * 3}.png") for n in range(6)]


def npz(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, image=image, text=text)
    return out.getvalue()


def test_equal_embeddings_are_duplicates(ingested: Ingested, duplicates: Duplicates) -> None:
    image, text = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    image[4], text[5] = image[1], text[0]
    dataset = ingested(npz(image, text), "embeddings.npz")
    assert dataset["summary"]["duplicates"] == {
        "image": {"groups": 1, "pairs": 2},
        "caption": {"groups": 1, "pairs": 2},
        "near_image": {"groups": 1, "pairs": 2},
        "near_caption": {"groups": 1, "pairs": 2},
    }
    assert duplicates(dataset, "image") == [("1", "1"), ("4", "1")]
    assert duplicates(dataset, "caption") == [("0", "0"), ("5", "0")]
    assert duplicates(dataset, "pixels") == []


def test_nearly_equal_embeddings_are_found_among_those_of_all_shards(
    ingested: Ingested,
    duplicates: Duplicates,
    settings: Settings,
) -> None:
    image, text = np.random.default_rng(0).normal(size=(2, 70, 16)).astype(np.float32)
    image[69], image[3] = 5 * image[1] + 0.01, image[1]  # length does not matter
    text[68] = text[0] - 0.01 * text[1]
    text[5] = text[6] = 0
    dataset = ingested(npz(image, text), "embeddings.npz")
    assert dataset["summary"]["duplicates"] == {
        "image": {"groups": 1, "pairs": 2},
        "caption": {"groups": 1, "pairs": 2},
        "near_image": {"groups": 1, "pairs": 3},
        "near_caption": {"groups": 2, "pairs": 4},
    }
    assert duplicates(dataset, "near_image") == [("1", "1"), ("3", "1"), ("69", "1")]
    assert duplicates(dataset, "near_caption") == [("0", "0"), ("68", "0"), ("5", "5"), ("6", "5")]


def test_a_cursor_of_one_kind_is_refused_by_another(
    client: TestClient, ingested: Ingested, problem_of: ProblemOf
) -> None:
    rows = [{"file_name": "a.png", "caption": "x"}] * 3
    url = f"/datasets/{ingested(zipped(rows, IMAGES))['id']}/pairs"
    cursor = client.get(url, params={"duplicate": "image", "limit": 1}).json()["next_cursor"]
    assert problem_of(client.get(url, params={"duplicate": "caption", "cursor": cursor}))["code"] == "invalid_cursor"
    assert problem_of(client.get(url, params={"duplicate": "image", "rejected": True}))["code"] == "two_filters"
    assert client.get(url, params={"duplicate": "colour"}).status_code == 422


def test_the_captions_of_one_image_share_its_bytes(client: TestClient, ingested: Ingested, blobs: Blobs) -> None:
    rows = [{"file_name": "a.png", "captions": [f"caption {n}" for n in range(50)]}]
    dataset = ingested(zipped(rows, IMAGES))
    assert dataset["pair_count"] == 50
    url = f"/datasets/{dataset['id']}/pairs/a.png%2350/image"
    assert client.get(url).content == IMAGES["a.png"]
    stored = sum(len(content) for content in _blobs(blobs, dataset["id"]))
    assert stored == len(IMAGES["a.png"])
    assert dataset["summary"]["duplicates"]["image"] == {"groups": 0, "pairs": 0}


def _blobs(blobs: Blobs, dataset_id: str) -> list[bytes]:
    folder = blobs._root / "datasets" / dataset_id
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "upload"]


def test_a_deleted_dataset_leaves_no_duplicates(
    client: TestClient, ingested: Ingested, database: Database, blobs: Blobs, settings: Settings
) -> None:
    from sqlalchemy import func, select

    from doorbell.bell import Bell, celery_application
    from store.tables import Duplicate
    from worker.sweeper import sweep

    dataset = ingested(zipped([{"file_name": "a.png", "caption": "x"}] * 3, IMAGES))

    def listed() -> int | None:
        with database.transaction() as session:
            return session.scalar(select(func.count()).select_from(Duplicate))

    assert listed() == 9
    client.delete(f"/datasets/{dataset['id']}")
    bell = Bell(celery_application(settings))
    sweep(database, blobs, bell, settings)
    bell.close()
    assert listed() == 0


def test_two_captions_of_one_sample_of_a_webdataset(ingested: Ingested) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in {"1.png": picture(1), "1.json": b'{"caption": ["one", "two", ""]}'}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    dataset = ingested(out.getvalue(), "x.tar")
    assert (dataset["pair_count"], dataset["summary"]["rejected"]) == (2, {"no_caption": 1})
