"""Datasets by reference: a server of files, and asking for what lies there."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from doorbell.bell import Bell
from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.attempts.attempt import Workplace, work_once
from worker.sweeper import sweep

FileServer = tuple[ThreadingHTTPServer, dict[str, bytes], list[dict[str, str]], list[Any]]
Post = Callable[..., dict[str, Any]]
Sweeping = Callable[..., None]


class Files(BaseHTTPRequestHandler):
    """Serves what it is given, with a tag and ranges; `cut` connections break half-way."""

    def __init__(self, files: dict[str, bytes], asked: list[dict[str, str]], cut: list[Any], *arguments: Any) -> None:
        self.files, self.asked, self.cut = files, asked, cut
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.asked.append(dict(self.headers) | {"path": self.path})
        name = self.path.partition("?")[0]
        if name == "/moved":
            self.send_response(302)
            self.send_header("Location", "/there")
            self.end_headers()
            return
        if name not in self.files:
            self.send_error(404)
            return
        content, begin = self.files[name], 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(found[1])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = len(content)
        if self.cut:
            self.cut.pop()
            end = begin + (end - begin) // 2
        self.wfile.write(content[begin:end])
        if end < len(content):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    """(its port, files by path, the requests it saw, connections to cut)."""
    files: dict[str, bytes] = {}
    asked: list[dict[str, str]] = []
    cut: list[Any] = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, files, asked, cut))
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made, files, asked, cut
    made.shutdown()
    thread.join()
    made.server_close()


class Silent(Bell):
    """In the place of a bell: nobody is called."""

    def __init__(self) -> None:
        pass

    def ring(self, waiting: object) -> None:
        pass


@pytest.fixture
def sweeping(database: Database, blobs: Blobs, settings: Settings) -> Sweeping:
    """One round of the sweeper; settings may be given anew."""
    return lambda **changed: sweep(database, blobs, Silent(), settings.model_copy(update=changed))


@pytest.fixture
def job(client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> str:
    """A job of a few cheap shards on a ready dataset of twenty pairs, about to begin."""
    dataset = upload(embedding_zip(20))["id"]
    work()
    spec = {"task": "misalignment", "dataset": dataset, "fit": None, "methods": ["clip_score"]}
    return client.post("/jobs", json=spec).json()["id"]


@pytest.fixture
def near(settings: Settings) -> Settings:
    """Settings of an operator who fetches from private addresses."""
    return settings.model_copy(update={"ecif_private_sources": True})


@pytest.fixture
def post(near: Settings, database: Database, blobs: Blobs) -> Post:
    """Ask for a dataset by its URI, do all work, return it as it then is."""

    def ask(uri: str, **body: Any) -> dict[str, Any]:
        with TestClient(create_app(near), raise_server_exceptions=False) as client:
            answer = client.post("/datasets", json={"uri": uri, **body})
            assert answer.status_code == 201, answer.text
            assert answer.json()["status"] == "ingesting"
            while work_once(Workplace(near, database, blobs)) is not None:
                pass
            return client.get(f"/datasets/{answer.json()['id']}").json()

    return ask
