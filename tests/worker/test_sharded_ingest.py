"""However an upload is cut into shards, and however often a shard is read, the same dataset comes out."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.states import DuplicateKind
from tests.readers.conftest import tar_bytes
from tests.service_fixtures import Upload
from worker import pipeline
from worker.attempts.attempt import Workplace, work_once

Ingest = Callable[[bytes, str, int], tuple[dict[str, Any], int]]


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


IMAGES = {f"{n:02d}.png": picture(n % 17) for n in range(23)} | {"07.png": b"none", "unnamed.png": picture(1)}


def folder(compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Several captions, repeated keys, a file that is not there, and rejected rows between the good."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["file_name", "caption", "label"])
    rows.writerows((f"{n:02d}.png", "" if n == 3 else f"caption {n % 5}", n % 2) for n in [*range(23), 1, 40, 2])
    return zipped({"metadata.csv": table.getvalue().encode()} | IMAGES, compression)


def lists() -> bytes:
    lines = [{"file_name": name, "captions": [f"{name} {n}" for n in range(4)]} for name in sorted(IMAGES)[:9]]
    return zipped({"metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()} | IMAGES)


def webdataset() -> bytes:
    files = {}
    for name, image in sorted(IMAGES.items()):
        files[name] = image
        if name != "11.png":
            files[name.replace(".png", ".txt")] = f"caption {name[0]}".encode()
    return tar_bytes(files)


def damaged() -> bytes:
    content = bytearray(folder(zipfile.ZIP_STORED))
    at = content.find(IMAGES["12.png"])
    content[at + 60] ^= 255
    return bytes(content)


def embeddings(bad: int | None = None) -> bytes:
    generator = np.random.default_rng(0)
    sides = [generator.standard_normal((37, 6)).astype(np.float16) for _ in range(2)]
    sides[0][20] = sides[0][5]
    if bad is not None:
        sides[1][bad] = np.nan
    out = io.BytesIO()
    np.savez(out, image=sides[0], text=sides[1])
    return out.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


UPLOADS = {
    "folder": (folder(), "x.zip"),
    "lists": (lists(), "x.zip"),
    "damaged": (damaged(), "x.zip"),
    "webdataset": (webdataset(), "x.tar"),
    "embeddings": (embeddings(), "x.npz"),
    "embeddings, the first bad": (embeddings(bad=0), "x.npz"),
}


@pytest.fixture
def seen(client: TestClient, upload: Upload, database: Database, blobs: Blobs, settings: Settings) -> Ingest:
    """Ingest an upload in parts of so many pairs, and say all that can be seen of it, and how many shards read it."""

    def ingest(content: bytes, name: str, pairs: int) -> tuple[dict[str, Any], int]:
        dataset = upload(content, name)
        small = settings.model_copy(update={"ecif_shard_pairs": pairs})
        phases = []
        while (before := work_once(Workplace(small, database, blobs))) is not None:
            phases.append(before)
        url = f"/datasets/{dataset['id']}"
        ready = client.get(url).json()
        assert ready["status"] == "ready"
        listed = client.get(f"{url}/pairs", params={"limit": 200}).json()["items"]
        equal = {
            kind: client.get(f"{url}/pairs", params={"duplicate": kind}).json()["items"]
            for kind in DuplicateKind
            if kind.value in ready["summary"]["duplicates"]
        }
        images = [
            client.get(f"{url}/pairs/{pair['key'].replace('#', '%23')}/image").content
            for pair in listed
            if pair["width"] and not pair["error"]
        ]
        told = {field: ready[field] for field in ("format", "pair_count", "rejected_count", "warnings", "summary")}
        return {"told": told, "pairs": listed, "equal": equal, "images": images}, len(phases)

    return ingest


@pytest.mark.parametrize("name", UPLOADS)
def test_shards_change_nothing(seen: Ingest, name: str) -> None:
    content, filename = UPLOADS[name]
    whole, few = seen(content, filename, 4096)
    cut, many = seen(content, filename, 2)
    assert cut == whole
    assert many > few


def test_a_shard_that_is_done_twice_changes_nothing(seen: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    once, _ = seen(*UPLOADS["folder"], 2)
    real = pipeline.run

    def twice(task: Any) -> Any:
        real(task)
        return real(task)

    monkeypatch.setattr(pipeline, "run", twice)
    assert seen(*UPLOADS["folder"], 2)[0] == once


def test_nothing_that_passed_between_the_phases_is_left(seen: Ingest, blobs: Blobs) -> None:
    seen(*UPLOADS["webdataset"], 2)
    assert not [name for name, _ in blobs.list("datasets") if "/passing/" in name]
