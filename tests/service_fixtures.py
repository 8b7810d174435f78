"""An API over a real PostgreSQL and a worker that is called by hand: no process, no broker. And data to give them."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from worker.attempts.attempt import Workplace, work_once

Work = Callable[[], None]


class Answer(Protocol):
    """Of `TestClient` or of `httpx`: each has a response of its own."""

    @property
    def status_code(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def json(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Refusing:
    """A service that many tests send what it refuses, which changes nothing, and the ids of its ready datasets."""

    client: TestClient
    home: Path
    embeddings: str
    """40 pairs"""
    clean: str
    """12 pairs of the same width"""
    images: str
    """6 pairs"""


ProblemOf = Callable[[Answer], dict[str, Any]]


class ImageZip(Protocol):
    def __call__(
        self, n: int = 6, broken: tuple[int, ...] = (), columns: tuple[str, str] = ("file_name", "caption")
    ) -> bytes: ...


class EmbeddingZip(Protocol):
    def __call__(
        self, n: int = 40, width: int = 8, wrong: int = 0, seed: int = 0, text_rows: int | None = None
    ) -> bytes: ...


class Upload(Protocol):
    def __call__(self, content: bytes, filename: str = "data.zip", **fields: str) -> dict[str, Any]: ...


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def picture(seed: int, size: int = 32) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def image_zip() -> ImageZip:
    """A zip of n images with a metadata.csv; `broken` names the rows whose image is no image."""

    def make(n: int = 6, broken: tuple[int, ...] = (), columns: tuple[str, str] = ("file_name", "caption")) -> bytes:
        table = io.StringIO()
        rows = csv.writer(table)
        rows.writerow([*columns, "source"])
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for i in range(n):
                rows.writerow([f"images/{i}.png", f"picture number {i}", f"site {i}"])
                archive.writestr(f"images/{i}.png", b"no image at all" if i in broken else picture(i))
            archive.writestr("metadata.csv", table.getvalue())
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def embedding_zip() -> EmbeddingZip:
    """A zip of image.npy and text.npy: n pairs of unit vectors, `wrong` of them with another pair's text."""

    def make(n: int = 40, width: int = 8, wrong: int = 0, seed: int = 0, text_rows: int | None = None) -> bytes:
        generator = np.random.default_rng(seed)
        image = generator.normal(size=(n, width)).astype(np.float32)
        text = image + 0.3 * generator.normal(size=(n, width)).astype(np.float32)
        text[:wrong] = text[:wrong][::-1]
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in (("image.npy", image), ("text.npy", text[:text_rows])):
                buffer = io.BytesIO()
                np.save(buffer, content)
                archive.writestr(name, buffer.getvalue())
        return out.getvalue()

    return make


@pytest.fixture
def work(settings: Settings, database: Database, blobs: Blobs) -> Work:
    """Do everything that there is to do, in this process."""

    def all_of_it() -> None:
        place = Workplace(settings, database, blobs)
        while work_once(place) is not None:
            pass

    return all_of_it


@pytest.fixture
def upload(client: TestClient) -> Upload:
    def send(content: bytes, filename: str = "data.zip", **fields: str) -> dict[str, Any]:
        answer = client.post("/datasets", files={"file": (filename, content)}, data=fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    return send


@pytest.fixture(scope="session")
def refusing(
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
    embedding_zip: EmbeddingZip,
    image_zip: ImageZip,
) -> Iterator[Refusing]:
    settings = Settings(
        ecif_home=tmp_path_factory.mktemp("refusing"),
        database_url=new_database(),
        redis_url="redis://127.0.0.1:1/0",
        ecif_device="cpu",
    )
    database = Database.from_settings(settings)
    place = Workplace(settings, database, Blobs.from_settings(settings))
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        sent = (embedding_zip(40, wrong=8), embedding_zip(12, seed=1), image_zip(6))
        answers = [client.post("/datasets", files={"file": ("data.zip", content)}) for content in sent]
        while work_once(place) is not None:
            pass
        yield Refusing(client, settings.ecif_home, *(answer.json()["id"] for answer in answers))
        assert client.get("/jobs").json()["total"] == 0
        assert client.get("/datasets").json()["total"] == len(sent)
    database.close()


def problem_of(answer: Answer) -> dict[str, Any]:
    """The problem document of an answer, checked to be one."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert {"type", "title", "detail", "code"} <= set(body)
    return dict(body)


@pytest.fixture(name="problem_of")
def problem_of_fixture() -> ProblemOf:
    return problem_of
