"""Uploads in pieces, as tus clients send them: a real client library against a real server."""

import base64
import errno
import hashlib
import io
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from doorbell.bell import Bell
from service.app import create_app
from store import api_keys, blobs
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import Dataset, Upload
from tests.service.serving import in_a_process, in_a_thread
from tests.service_fixtures import Answer, EmbeddingZip, ImageZip, ProblemOf, Refusing, Work
from worker.sweeper import sweep

Client = TestClient | httpx.Client

PIECE = 64 * 1024
BYTES = {"content-type": "application/offset+octet-stream"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no proxy between a client of the `requests` kind and this machine."""
    monkeypatch.setattr(blobs, "_FILE_PIECE_BYTES", PIECE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def content(image_zip: ImageZip) -> bytes:
    """A dataset of several pieces."""
    return image_zip(100)


def uploader(server: str, content: bytes, **how: Any) -> Any:
    """A client's view of one file; with `url` it goes on with an upload that is there."""
    how = {"chunk_size": 100_000, "metadata": {"filename": "bilder ü.zip"}, **how}
    return TusClient(f"{server}/uploads").uploader(file_stream=io.BytesIO(content), **how)


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def kept_files(settings: Settings) -> list[Path]:
    return [path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()]


def begun(client: Client, length: int, **headers: Any) -> str:
    answer = client.post("/uploads", headers={"upload-length": str(length), **headers})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(client: Client, url: str, offset: int, content: Any, **headers: Any) -> Answer:
    return client.patch(url, content=content, headers={**BYTES, "upload-offset": str(offset), **headers})


def offset_of(client: Client, url: str) -> int:
    return int(client.head(url).headers["upload-offset"])


def use(client: Client, url: str, **more: Any) -> Answer:
    return client.post("/datasets", json={"upload": url.rpartition("/")[2], **more})


@pytest.mark.parametrize("checksum", [False, True])
def test_a_client_sends_a_file_and_it_becomes_a_dataset(
    settings: Settings, content: bytes, work: Work, checksum: bool
) -> None:
    with in_a_thread(settings) as url:
        sending = uploader(url, content, upload_checksum=checksum)
        sending.upload()
        made = httpx.post(f"{url}/datasets", json={"upload": sending.url.rpartition("/")[2]}, trust_env=False)
        assert made.status_code == 201, made.text
        assert made.headers["location"] == f"/datasets/{made.json()['id']}"
        assert (made.json()["digest"], made.json()["name"]) == (digest(content), "bilder ü.zip")
        work()
        ready = httpx.get(f"{url}/datasets/{made.json()['id']}", trust_env=False).json()
    assert (ready["status"], ready["pair_count"]) == ("ready", 100)


def test_a_client_that_was_interrupted_goes_on(settings: Settings, content: bytes) -> None:
    with in_a_thread(settings) as url:
        sending = uploader(url, content, chunk_size=PIECE)
        sending.upload(stop_at=3 * PIECE)
        path = urlsplit(sending.url).path
    # Another server, another client, and half a connection in between.
    with in_a_thread(settings) as url:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(address) as cut:
            cut.sendall(
                f"PATCH {path} HTTP/1.1\r\nHost: {address[0]}\r\nUpload-Offset: {3 * PIECE}\r\n"
                f"Content-Type: {BYTES['content-type']}\r\nContent-Length: {2 * PIECE}\r\n\r\n".encode()
                + content[3 * PIECE : 4 * PIECE + 1000]
            )
        going_on = uploader(url, content, url=url + path)
        while going_on.offset < 4 * PIECE + 1000:  # what the cut connection brought is kept, once the cut is noticed
            going_on.offset = going_on.get_offset()
        going_on.upload()
        made = httpx.post(f"{url}/datasets", json={"upload": path.rpartition("/")[2]}, trust_env=False)
    assert made.json()["digest"] == digest(content)


def test_a_server_that_is_killed_loses_nothing_that_it_acknowledged(settings: Settings, content: bytes) -> None:
    with in_a_thread(settings) as url:
        sending = uploader(url, content, chunk_size=PIECE)
        sending.upload(stop_at=2 * PIECE)
        path = urlsplit(sending.url).path
    with in_a_process(settings, "store.uploads.acknowledge") as (url, _), pytest.raises(TusUploadFailed):
        uploader(url, content[:-5] + b"other", url=url + path).upload()
    with in_a_thread(settings) as url:
        going_on = uploader(url, content, url=url + path)
        assert going_on.offset == 2 * PIECE
        going_on.upload()
        made = httpx.post(f"{url}/datasets", json={"upload": path.rpartition("/")[2]}, trust_env=False)
    assert made.json()["digest"] == digest(content)
    assert [path.read_bytes() for path in kept_files(settings)] == [content]


def test_what_is_spoken(client: TestClient, settings: Settings) -> None:
    answer = client.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,expiration,termination,checksum"
    assert answer.headers["tus-max-size"] == str(settings.ecif_max_upload_bytes)
    url = begun(client, 10, **{"upload-metadata": "filename eC56aXA=,empty"})
    head = client.head(url)
    assert (head.status_code, head.headers["cache-control"], head.content) == (200, "no-store", b"")
    assert head.headers["upload-metadata"] == "filename eC56aXA=,empty"
    assert (head.headers["upload-length"], head.headers["upload-offset"]) == ("10", "0")
    assert head.headers["upload-expires"].endswith(" GMT")


def test_a_network_without_patch(client: TestClient) -> None:
    url = begun(client, 3)
    sent = {**BYTES, "upload-offset": "0", "x-http-method-override": "PATCH"}
    answer = client.post(url, content=b"abc", headers=sent)
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "3")
    assert client.post(url, headers={"x-http-method-override": "DELETE"}).status_code == 204


@pytest.mark.parametrize(
    ("method", "headers", "status", "code"),
    [
        ("POST", {"upload-length": "x"}, 422, "invalid_request"),
        ("POST", {"upload-length": "-1"}, 422, "invalid_request"),
        ("POST", {}, 422, "invalid_request"),
        ("POST", {"upload-length": "1001"}, 413, "body_too_large"),
        ("POST", {"upload-length": "9" * 30}, 422, "invalid_request"),
        ("POST", {"upload-length": "1", "upload-metadata": "filename %%%"}, 400, "malformed_metadata"),
        ("POST", {"upload-length": "1", "upload-metadata": ",,"}, 400, "malformed_metadata"),
        ("POST", {"upload-length": "1", "upload-metadata": "a " + "A" * 5000}, 422, "invalid_request"),
        ("POST", {"upload-length": "1", "tus-resumable": "0.2.2"}, 412, "unknown_version"),
        ("PATCH", {**BYTES}, 422, "invalid_request"),
        ("PATCH", {"upload-offset": "0", "content-type": "text/plain"}, 415, "unsupported_media_type"),
        ("PATCH", {**BYTES, "upload-offset": "5"}, 409, "wrong_offset"),
        ("PATCH", {**BYTES, "upload-offset": "0", "upload-checksum": "crc32 AAAA"}, 400, "malformed_checksum"),
        ("PATCH", {**BYTES, "upload-offset": "0", "upload-checksum": "sha1 %"}, 400, "malformed_checksum"),
        ("PATCH", {**BYTES, "upload-offset": "0", "upload-checksum": "sha1 AAAA"}, 460, "checksum_mismatch"),
        ("PATCH", {**BYTES, "upload-offset": "0", "tus-resumable": "2"}, 412, "unknown_version"),
    ],
)
def test_a_bad_request_is_a_problem_and_changes_nothing(
    settings: Settings, problem_of: ProblemOf, method: str, headers: dict[str, Any], status: int, code: str
) -> None:
    with TestClient(create_app(settings.model_copy(update={"ecif_max_upload_bytes": 1000}))) as client:
        url = begun(client, 10)
        answer = client.request(method, url if method == "PATCH" else "/uploads", headers=headers, content=b"")
        problem = problem_of(answer)
        assert (problem["status"], problem["code"]) == (status, code)
        assert answer.headers["tus-resumable"] == "1.0.0"
        if status == 412:
            assert answer.headers["tus-version"] == "1.0.0"
        if status == 413:
            assert "1,000" in problem["detail"]
        assert offset_of(client, url) == 0
        assert patch(client, url, 0, b"0123456789").status_code == 204


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_was_announced_is_a_413(
    client: TestClient, problem_of: ProblemOf, declared: bool, settings: Settings
) -> None:
    url = begun(client, 10)
    body = b"x" * 11 if declared else iter([b"x" * 6, b"x" * 5])
    problem = problem_of(patch(client, url, 0, body))
    assert (problem["status"], problem["code"]) == (413, "upload_too_long")
    assert "10 bytes" in problem["detail"]
    assert patch(client, url, offset_of(client, url), b"x" * (10 - offset_of(client, url))).status_code == 204
    assert [path.read_bytes() for path in kept_files(settings)] == [b"x" * 10]


def test_a_body_with_a_checksum_counts_as_a_whole_or_not_at_all(
    client: TestClient, content: bytes, settings: Settings
) -> None:
    url = begun(client, len(content))

    def checksum(body: bytes) -> dict[str, str]:
        return {"upload-checksum": "sha256 " + base64.b64encode(hashlib.sha256(body).digest()).decode()}

    damaged = bytearray(content)
    damaged[-1] ^= 1
    answer = patch(client, url, 0, bytes(damaged), **checksum(content))
    assert (answer.status_code, answer.json()["title"]) == (460, "Checksum Mismatch")
    assert offset_of(client, url) == 0
    assert patch(client, url, 0, content[:PIECE], **checksum(content[:PIECE])).status_code == 204
    assert patch(client, url, PIECE, content[PIECE:], **checksum(content[PIECE:])).status_code == 204
    assert use(client, url).json()["digest"] == digest(content)


def test_of_two_that_write_the_older_one_gives_way(settings: Settings, problem_of: ProblemOf) -> None:
    newer = []
    with in_a_thread(settings) as server, httpx.Client(base_url=server, trust_env=False) as client:
        url = begun(client, 4 * PIECE)

        def older() -> Iterator[bytes]:
            yield b"a" * PIECE
            while offset_of(client, url) < PIECE:
                pass
            newer.append(patch(client, url, PIECE, b"b" * PIECE))
            yield b"a" * PIECE

        problem = problem_of(patch(client, url, 0, older()))
        assert (problem["status"], problem["code"]) == (409, "upload_taken_over")
        assert newer[0].status_code == 204
        assert offset_of(client, url) == 2 * PIECE
    assert [path.read_bytes() for path in kept_files(settings)] == [b"a" * PIECE + b"b" * PIECE]


@pytest.fixture
def tenants(client: TestClient, database: Database) -> list[TestClient]:
    with database.transaction() as session:
        secrets = [api_keys.create(session, tenant, None)[1] for tenant in ("ours", "theirs")]
    return [TestClient(client.app, headers={"Authorization": f"Bearer {secret}"}) for secret in secrets]


def test_an_upload_of_another_tenant_is_not_there(tenants: list[TestClient], problem_of: ProblemOf) -> None:
    ours, them = tenants
    url = begun(them, 4)
    patch(them, url, 0, b"ab")
    assert ours.head(url).status_code == 404
    assert problem_of(patch(ours, url, 2, b"cd"))["status"] == 404
    assert problem_of(ours.delete(url))["status"] == 404
    assert patch(them, url, 2, b"cd").status_code == 204
    problem = problem_of(use(ours, url))
    assert (problem["status"], problem["code"]) == (422, "unknown_upload")
    assert use(them, url).status_code == 201


def test_the_bytes_of_a_tenant_are_counted_from_the_announcement_on(
    settings: Settings, database: Database, problem_of: ProblemOf, embedding_zip: EmbeddingZip
) -> None:
    content = embedding_zip(40)
    limit = 2 * len(content) + 1000  # a form is a little longer than its file
    app = create_app(settings.model_copy(update={"ecif_max_stored_bytes": limit}))
    with TestClient(app), database.transaction() as session:
        secret = api_keys.create(session, "a", None)[1]
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as client:
        first = begun(client, len(content))
        refused = client.post("/uploads", headers={"upload-length": str(len(content) + 1001)})
        problem = problem_of(refused)
        assert (problem["status"], problem["code"]) == (429, "too_many_bytes")
        assert f"{len(content):,} of {limit:,} bytes are in use" in problem["detail"]
        assert int(refused.headers["retry-after"]) > 0
        second = begun(client, len(content))
        form = {"file": ("x.zip", content)}
        assert problem_of(client.post("/datasets", files=form))["code"] == "too_many_bytes"
        assert client.delete(second).status_code == 204
        assert patch(client, first, 0, content).status_code == 204
        assert use(client, first).status_code == 201
        assert client.post("/datasets", files=form).status_code == 201  # counted once: as a dataset
        assert problem_of(client.post("/uploads", headers={"upload-length": "1001"}))["code"] == "too_many_bytes"


def test_an_upload_is_used_once(client: TestClient, content: bytes, problem_of: ProblemOf, settings: Settings) -> None:
    url = begun(client, len(content))
    patch(client, url, 0, content[:PIECE])
    unfinished = problem_of(use(client, url))
    assert (unfinished["status"], unfinished["code"]) == (422, "upload_unfinished")
    assert f"{PIECE:,} of its {len(content):,} bytes" in unfinished["detail"]
    patch(client, url, PIECE, content[PIECE:])
    made = use(client, url, name="mine", format="folder")
    assert (made.status_code, made.json()["name"], made.json()["format"]) == (201, "mine", "folder")
    for again in (use(client, url), client.delete(url), patch(client, url, len(content), b"")):
        problem = problem_of(again)
        assert (problem["status"], problem["code"]) == (409, "upload_used")
        assert made.json()["id"] in problem["detail"]
    assert client.get("/datasets").json()["total"] == 1
    assert len(kept_files(settings)) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"upload": "up_nothing"}, 422, "unknown_upload"),
        ({"upload": 7}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ({"upload": "up_x", "color": "red"}, 422, "invalid_request"),
        ({"upload": "up_x", "name": "x" * 201}, 422, "invalid_request"),
        ({"upload": "up_\0"}, 422, "unstorable_text"),
        ([], 422, "invalid_request"),
    ],
)
def test_a_bad_reference_is_a_problem(
    refusing: Refusing, problem_of: ProblemOf, body: list[Any] | dict[str, Any], status: int, code: str
) -> None:
    problem = problem_of(refusing.client.post("/datasets", json=body))
    assert (problem["status"], problem["code"]) == (status, code)


def test_an_empty_upload_is_no_dataset(client: TestClient, problem_of: ProblemOf) -> None:
    assert problem_of(use(client, begun(client, 0)))["code"] == "empty_file"


def test_the_same_reference_twice_makes_one_dataset(client: TestClient, content: bytes, problem_of: ProblemOf) -> None:
    url = begun(client, len(content))
    patch(client, url, 0, content)
    request: dict[str, Any] = {"json": {"upload": url.rpartition("/")[2]}, "headers": {"Idempotency-Key": "1"}}
    first, again = (client.post("/datasets", **request) for _ in range(2))
    assert (first.status_code, first.content) == (201, again.content)
    assert again.headers["idempotency-replayed"] == "true"
    request["json"]["name"] = "other"
    assert problem_of(client.post("/datasets", **request))["code"] == "idempotency_key_reused"
    assert client.get("/datasets").json()["total"] == 1


class NoBell(Bell):
    def __init__(self) -> None:
        pass

    def ring(self, waiting: object) -> None:
        pass


def test_what_nobody_goes_on_with_is_swept_away(
    client: TestClient, content: bytes, settings: Settings, database: Database, blobs: Blobs, problem_of: ProblemOf
) -> None:
    used, left = begun(client, len(content)), begun(client, len(content))
    patch(client, used, 0, content)
    patch(client, left, 0, content[:PIECE])
    made = use(client, used).json()["id"]
    sweep(database, blobs, NoBell(), settings)
    assert (offset_of(client, left), len(kept_files(settings))) == (PIECE, 2)

    at_once = settings.model_copy(update={"ecif_upload_kept_seconds": 1e-9})
    with database.transaction() as session:
        session.execute(update(Upload).values(expires_at=func.now()))
    assert client.head(left).status_code == 404
    assert problem_of(patch(client, left, PIECE, content[PIECE:]))["code"] == "upload_not_found"
    for _ in range(2):
        sweep(database, blobs, NoBell(), at_once)
    assert [path.read_bytes() for path in kept_files(settings)] == [content]
    assert client.get(f"/datasets/{made}").status_code == 200
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Upload)) == 0


def test_how_long_it_is_kept_is_a_setting_and_counts_from_the_last_bytes(
    settings: Settings, database: Database
) -> None:
    def seconds_left() -> float:
        with database.transaction() as session:
            left = session.scalar(select(Upload.expires_at - func.now()))
            session.execute(update(Upload).values(expires_at=Upload.expires_at - (left - left / 2)))
            return left.total_seconds()

    with TestClient(create_app(settings.model_copy(update={"ecif_upload_kept_seconds": 500.0}))) as client:
        url = begun(client, 10)
        assert 490 < seconds_left() <= 500
        patch(client, url, 0, b"abc")
        assert 490 < seconds_left() <= 500


def test_a_deleted_upload_is_gone(
    client: TestClient, content: bytes, settings: Settings, problem_of: ProblemOf
) -> None:
    url = begun(client, len(content))
    patch(client, url, 0, content)
    assert client.delete(url).status_code == 204
    assert client.head(url).status_code == 404
    assert problem_of(use(client, url))["code"] == "unknown_upload"
    assert kept_files(settings) == []


@contextmanager
def full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str) -> Iterator[None]:
    """A disk that takes a piece and a half."""
    if kind == "tmpfs":
        folder = settings.ecif_home / "blobs" / "datasets"
        folder.mkdir(parents=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PIECE * 3 // 2}", "tmpfs", folder]).returncode:
            pytest.skip("only root may mount a small disk to fill; the other kind of full disk needs no root and runs")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return

    real = os.pwrite

    def pwrite(file: int, content: bytes, at: int) -> int:
        if at >= PIECE * 3 // 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, content[: PIECE * 3 // 2 - at], at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    yield


@pytest.mark.parametrize("kind", ["fake", "tmpfs"])
def test_a_full_disk_is_a_507_and_what_was_acknowledged_stays(
    settings: Settings, content: bytes, problem_of: ProblemOf, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with full_disk(settings, monkeypatch, kind), TestClient(create_app(settings)) as client:
        url = begun(client, len(content))
        assert patch(client, url, 0, content[:PIECE]).status_code == 204
        problem = problem_of(patch(client, url, PIECE, content[PIECE:]))
        assert (problem["status"], problem["code"]) == (507, "storage_full")
        assert offset_of(client, url) == PIECE
        assert [path.stat().st_size for path in kept_files(settings)] == [PIECE]
        assert client.get("/readyz").status_code == 200
        assert client.delete(url).status_code == 204
        assert kept_files(settings) == []


def test_pieces_in_an_object_store_are_read_as_one() -> None:
    """A piece that was given up lies where another way of cutting passes over it."""
    store, random_bytes = Blobs("memory:///"), random.Random(0).randbytes(100)
    store.put_piece("a", 0, random_bytes[:40])
    store.put_piece("a", 40, b"given up")
    store.put_piece("a", 48, b"given up too")
    store.put_piece("a", 40, random_bytes[40:70])
    store.put_piece("a", 70, random_bytes[70:])
    assert b"".join(store.stream("a")) == random_bytes
    with store.local_path("a") as path, store.open("a") as file:
        assert path.read_bytes() == file.read() == random_bytes
    with pytest.raises(FileNotFoundError):
        list(store.stream("b"))


def test_a_lost_file_is_not_filled_up_with_zeros(
    client: TestClient, content: bytes, settings: Settings, database: Database
) -> None:
    url = begun(client, len(content))
    patch(client, url, 0, content[:PIECE])
    kept_files(settings)[0].unlink()
    assert patch(client, url, PIECE, content[PIECE:]).status_code == 500
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0


def test_a_wrong_answer_is_told_by_the_client_library(settings: Settings) -> None:
    small = settings.model_copy(update={"ecif_max_upload_bytes": 10})
    with in_a_thread(small) as url:
        with pytest.raises(TusCommunicationError) as refused:
            uploader(url, b"x" * 11).upload()
        assert refused.value.status_code is None or refused.value.status_code == 413
        fine = uploader(url, b"x" * 10)
        fine.upload()
        fine.offset = 0
        with pytest.raises(TusUploadFailed) as conflict:
            fine.upload()
        assert conflict.value.status_code == 409


def test_an_announcement_under_the_same_key_is_the_same_upload(
    client: TestClient, content: bytes, problem_of: ProblemOf
) -> None:
    key = {"idempotency-key": "nightly"}
    first = client.post("/uploads", headers={"upload-length": str(len(content)), **key})
    patch(client, first.headers["location"], 0, content[:1000])
    again = client.post("/uploads", headers={"upload-length": str(len(content)), **key})
    assert (again.status_code, again.headers["location"]) == (201, first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["tus-resumable"] == "1.0.0"
    assert offset_of(client, again.headers["location"]) == 1000
    other = client.post("/uploads", headers={"upload-length": "7", **key})
    assert problem_of(other)["code"] == "idempotency_key_reused"
    assert begun(client, len(content)) != first.headers["location"]
