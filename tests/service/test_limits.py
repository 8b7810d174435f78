"""What one tenant may ask for at once; without keys there is no limit."""

import json
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.limits import Incoming, RequestRate
from store import api_keys, jobs, owners
from store.database import Database
from store.errors import LimitError
from store.settings import Settings
from store.tables import Job
from tests.service.serving import in_a_thread
from tests.service_fixtures import Answer, EmbeddingZip, ImageZip, ProblemOf, Upload, Work

Limited = Callable[..., list[TestClient]]

SPEC = {"task": "misalignment", "fit": None}


@pytest.fixture
def limited(settings: Settings, database: Database) -> Iterator[Limited]:
    """A service with the given limits, and a client of it for each of two tenants."""
    opened = []

    def make(**limits: Any) -> list[TestClient]:
        app = create_app(settings.model_copy(update=limits))
        opened.append(TestClient(app, raise_server_exceptions=False).__enter__())
        with database.transaction() as session:
            secrets = [api_keys.create(session, tenant, None)[1] for tenant in ("a", "b")]
        return [TestClient(app, headers={"Authorization": f"Bearer {secret}"}) for secret in secrets]

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def limit_of(answer: Answer, problem_of: ProblemOf) -> str:
    problem = problem_of(answer)
    assert problem["status"] == 429
    assert int(answer.headers["retry-after"]) > 0
    return problem["code"]


def test_requests_a_minute_are_counted_for_each_tenant(limited: Limited, problem_of: ProblemOf) -> None:
    one, other = limited(ecif_requests_per_minute=3)
    answers = [one.get("/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert limit_of(answers[-1], problem_of) == "too_many_requests"
    assert other.get("/jobs").status_code == 200
    assert one.get("/healthz").status_code == 200


def test_a_bucket_fills_again_while_nobody_asks() -> None:
    now = 0.0
    rate = RequestRate(60, lambda: now)
    for _ in range(60):
        rate.count("a")
    with pytest.raises(LimitError) as refused:
        rate.count("a")
    assert refused.value.retry_after == 1
    now = 1.0
    rate.count("a")
    with pytest.raises(LimitError):
        rate.count("a")


def test_unfinished_jobs_are_counted_exactly_even_at_once(
    limited: Limited, embedding_zip: EmbeddingZip, problem_of: ProblemOf
) -> None:
    one, other = limited(ecif_max_unfinished_jobs=3)
    datasets = [
        client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}).json()["id"] for client in (one, other)
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: one.post("/jobs", json={**SPEC, "dataset": datasets[0]}), range(8)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert len(made) == 3
    assert {limit_of(answer, problem_of) for answer in answers if answer.status_code != 202} == {"too_many_jobs"}
    assert other.post("/jobs", json={**SPEC, "dataset": datasets[1]}).status_code == 202
    one.post(f"/jobs/{made[0]}/cancel")
    assert one.post("/jobs", json={**SPEC, "dataset": datasets[0]}).status_code == 202


def test_stored_bytes_are_counted_and_given_back(
    limited: Limited, embedding_zip: EmbeddingZip, settings: Settings, problem_of: ProblemOf
) -> None:
    content = embedding_zip(4)
    one, other = limited(ecif_max_stored_bytes=len(content) * 2)
    files, key = {"file": ("x.zip", content)}, {"Idempotency-Key": "1"}
    first = one.post("/datasets", files=files, headers=key).json()["id"]
    assert limit_of(one.post("/datasets", files={"file": ("x.zip", content * 2)}), problem_of) == "too_many_bytes"

    def undeclared() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        yield content * 2
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert limit_of(one.post("/datasets", content=undeclared(), headers=headers), problem_of) == "too_many_bytes"
    assert len([path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()]) == 1
    assert one.post("/datasets", files=files, headers=key).json()["id"] == first
    assert other.post("/datasets", files=files).status_code == 201
    one.delete(f"/datasets/{first}")
    assert one.post("/datasets", files=files).status_code == 201


def test_an_upload_of_unknown_length_is_refused_while_it_comes(
    settings: Settings, database: Database, problem_of: ProblemOf
) -> None:
    """Counted at its end only, all 64 MiB were on the disk before anybody saw that they are too many."""
    with database.transaction() as session:
        secret = api_keys.create(session, "a", None)[1]
    head = f"POST /datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n".encode()
    head += b"Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    sent, answer = 0, b""
    with in_a_thread(settings.model_copy(update={"ecif_max_stored_bytes": 1 << 20})) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head)
            for piece in (part, *[bytes(1 << 16)] * 1024):
                if select.select([connection], [], [], 0)[0]:
                    break
                try:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                except ConnectionError:
                    break
                sent += len(piece)
            with suppress(ConnectionError):
                while not answer.endswith(b"}"):  # the connection stays open for what is still to come
                    answer += connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too_many_bytes"
    assert sent < 32 << 20, "beyond what lies in the buffers of two sockets"


def test_uploads_that_come_at_once_are_counted_together() -> None:
    incoming = Incoming()
    with incoming.counted("a", 100, 0) as one, incoming.counted("a", 100, 0) as other:
        one(60)
        with pytest.raises(LimitError):
            other(50)
        with incoming.counted("b", 100, 100) as anothers:
            anothers(100)  # was declared
    with incoming.counted("a", 100, 100), pytest.raises(LimitError), incoming.counted("a", 100, 1):
        pass
    with incoming.counted("a", 100, 0) as again:
        again(100)


def test_what_is_made_of_an_upload_and_by_a_job_counts_too(
    settings: Settings, client: TestClient, upload: Upload, image_zip: ImageZip, work: Work, database: Database
) -> None:
    def stored_size(folder: str) -> int:
        files = [path for path in (settings.ecif_home / "blobs" / folder).rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)

    content = image_zip(6)
    dataset = upload(content)["id"]
    work()
    with database.transaction() as session:
        before = owners.stored_bytes(session)
    assert before == stored_size(f"datasets/{dataset}") > len(content)
    spec = {"task": "misalignment", "dataset": dataset, "model": {"architecture": "tiny"}, "fit": {"epochs": 2}}
    job = client.post("/jobs", json=spec).json()["id"]
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    with database.transaction() as session:
        stored = owners.stored_bytes(session)
    assert stored == before + stored_size(f"jobs/{job}") + 6 * jobs.BYTES_OF_A_RESULT
    assert stored_size(f"jobs/{job}") > 0
    client.delete(f"/jobs/{job}")
    with database.transaction() as session:
        assert owners.stored_bytes(session) == before


def test_a_tenant_beyond_its_bytes_begins_no_job(
    limited: Limited, embedding_zip: EmbeddingZip, database: Database, problem_of: ProblemOf
) -> None:
    one, _ = limited(ecif_max_stored_bytes=10_000)
    dataset = one.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}).json()["id"]
    job = one.post("/jobs", json={**SPEC, "dataset": dataset})
    assert job.status_code == 202
    with database.transaction() as session:
        session.get_one(Job, job.json()["id"]).kept_bytes = 10_000
    assert limit_of(one.post("/jobs", json={**SPEC, "dataset": dataset}), problem_of) == "too_many_bytes"
    one.delete(f"/jobs/{job.json()['id']}")
    assert one.post("/jobs", json={**SPEC, "dataset": dataset}).status_code == 202


def test_datasets_that_are_being_ingested_are_counted_exactly_even_at_once(
    limited: Limited,
    embedding_zip: EmbeddingZip,
    settings: Settings,
    work: Work,
    problem_of: ProblemOf,
) -> None:
    one, other = limited(ecif_max_unfinished_datasets=3)
    files = {"file": ("x.zip", embedding_zip(4))}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: one.post("/datasets", files=files), range(8)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(made) == 3
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {limit_of(answer, problem_of) for answer in refused} == {"too_many_unfinished_datasets"}
    assert not list((settings.ecif_home / "blobs" / "pending").rglob("ds_*"))
    upload = one.post("/uploads", headers={"Upload-Length": "1", "Tus-Resumable": "1.0.0"}).headers["location"]
    piece = {"Upload-Offset": "0", "Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    one.patch(upload, content=b"x", headers=piece)
    for body in ({"uri": "https://example.org/x.zip"}, {"upload": upload.rpartition("/")[2]}):
        assert limit_of(one.post("/datasets", json=body), problem_of) == "too_many_unfinished_datasets"
    form: dict[str, Any] = {"files": {"dataset": ("x.zip", embedding_zip(4))}, "data": {"spec": json.dumps(SPEC)}}
    assert limit_of(one.post("/jobs", **form), problem_of) == "too_many_unfinished_datasets"
    assert other.post("/datasets", files=files).status_code == 201
    work()
    assert one.post("/datasets", files=files).status_code == 201


def test_without_keys_there_is_no_limit(settings: Settings, embedding_zip: EmbeddingZip) -> None:
    least = {"ecif_requests_per_minute": 1, "ecif_max_unfinished_jobs": 1, "ecif_max_stored_bytes": 1}
    least["ecif_max_unfinished_datasets"] = 0
    with TestClient(create_app(settings.model_copy(update=least))) as client:
        dataset = client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}).json()["id"]
        answers = [client.post("/jobs", json={**SPEC, "dataset": dataset}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
