"""`Idempotency-Key`: a request that is sent again is done once, whatever happens in between."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save as save_file
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError

from store import idempotency
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import IdempotencyKey, Job
from tests.service.serving import in_a_process, in_a_thread
from tests.service_fixtures import Answer, EmbeddingZip, ImageZip, ProblemOf, Upload, Work, app_of
from worker.sweeper import remove_abandoned

SPEC = {"task": "misalignment", "fit": None}
KEY = {"Idempotency-Key": "one and the same"}


@pytest.fixture
def dataset(upload: Upload, embedding_zip: EmbeddingZip) -> str:
    return upload(embedding_zip(4))["id"]


def form(content: bytes, **spec: Any) -> dict[str, Any]:
    return {"dataset": ("a.zip", content), "spec": (None, json.dumps({**SPEC, **spec}))}


def same(answer: Answer, first: Answer) -> bool:
    return (answer.status_code, answer.content, answer.headers["location"]) == (
        first.status_code,
        first.content,
        first.headers["location"],
    )


def test_a_repeated_job_is_answered_again_and_made_once(client: TestClient, dataset: str) -> None:
    first = client.post("/jobs", json={**SPEC, "dataset": dataset}, headers=KEY)
    assert first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    # The same content in other words: defaults spelled out, fields in another order.
    again = client.post("/jobs", json={"dataset": dataset, "methods": ["ecif", "clip_score"], **SPEC}, headers=KEY)
    assert same(again, first)
    assert again.headers["idempotency-replayed"] == "true"
    assert client.get("/jobs").json()["total"] == 1


def test_another_body_under_the_same_key_is_a_422(client: TestClient, dataset: str, problem_of: ProblemOf) -> None:
    client.post("/jobs", json={**SPEC, "dataset": dataset}, headers=KEY)
    other = problem_of(client.post("/jobs", json={"task": "misalignment", "dataset": dataset}, headers=KEY))
    assert (other["status"], other["code"]) == (422, "idempotency_key_reused")
    assert client.get("/jobs").json()["total"] == 1


def test_forms_are_the_same_by_their_parts_not_by_their_boundaries(
    client: TestClient, embedding_zip: EmbeddingZip, blobs: Blobs, settings: Settings, problem_of: ProblemOf
) -> None:
    content = embedding_zip(4)
    first = client.post("/jobs", files=form(content), headers=KEY)
    again = client.post("/jobs", files=form(content), headers=KEY)
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert same(again, first)
    assert problem_of(client.post("/jobs", files=form(embedding_zip(5)), headers=KEY))["status"] == 422
    assert problem_of(client.post("/jobs", files=form(content, fit={"epochs": 1}), headers=KEY))["status"] == 422
    assert client.get("/datasets").json()["total"] == 1
    assert len([path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()]) == 1


def test_a_repeated_upload_is_answered_again_and_kept_once(
    client: TestClient, image_zip: ImageZip, problem_of: ProblemOf
) -> None:
    files = {"file": ("a.zip", image_zip(2))}
    first = client.post("/datasets", files=files, data={"name": "a"}, headers=KEY)
    assert same(client.post("/datasets", files=files, data={"name": "a"}, headers=KEY), first)
    assert problem_of(client.post("/datasets", files=files, data={"name": "b"}, headers=KEY))["status"] == 422
    assert client.get("/datasets").json()["total"] == 1


def test_a_key_is_of_its_own_endpoint_and_a_refused_request_does_not_use_it_up(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, dataset: str
) -> None:
    assert client.post("/jobs", json={**SPEC, "dataset": "ds_nothing"}, headers=KEY).status_code == 422
    assert client.post("/jobs", json={**SPEC, "dataset": dataset}, headers=KEY).status_code == 202
    assert client.post("/datasets", files={"file": ("a.zip", b"x")}, headers=KEY).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_no_or_too_many_letters_is_a_422(client: TestClient, problem_of: ProblemOf, key: str) -> None:
    problem = problem_of(client.post("/jobs", json=SPEC, headers={"Idempotency-Key": key}))
    assert problem["status"] == 422
    assert problem["errors"][0]["loc"] == ["header", "Idempotency-Key"]


def test_a_key_is_not_kept_as_it_came(client: TestClient, dataset: str, database: Database) -> None:
    client.post("/jobs", json={**SPEC, "dataset": dataset}, headers=KEY)
    with database.transaction() as session:
        assert len(session.scalars(select(IdempotencyKey.key_digest)).one()) == 32


def test_while_the_first_is_still_coming_a_repeat_is_a_409_that_says_when_to_ask_again(
    settings: Settings, embedding_zip: EmbeddingZip, problem_of: ProblemOf
) -> None:
    body = httpx.Request("POST", "http://x", files={"file": ("a.zip", embedding_zip(4))})
    content = body.read()
    with in_a_thread(settings.model_copy(update={"ecif_lease_seconds": 0.6})) as url:
        seen = []

        def slowly() -> Iterator[bytes]:
            yield content[:-100]
            time.sleep(1.5)  # longer than the lease: it is renewed
            seen.append(httpx.post(f"{url}/datasets", content=content, headers=headers, trust_env=False))
            yield content[-100:]

        headers = {"content-type": body.headers["content-type"], **KEY}
        first = httpx.post(f"{url}/datasets", content=slowly(), headers=headers, trust_env=False)
        assert first.status_code == 201
        problem = problem_of(seen[0])
        assert (problem["status"], problem["code"]) == (409, "request_in_progress")
        assert int(seen[0].headers["retry-after"]) > 0
        assert same(httpx.post(f"{url}/datasets", content=content, headers=headers, trust_env=False), first)


def test_a_body_that_stops_coming_is_a_408_and_lets_its_key_go(
    settings: Settings, embedding_zip: EmbeddingZip, problem_of: ProblemOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bodies._STALL_SECONDS", 0.3)
    body = httpx.Request("POST", "http://x", files={"file": ("a.zip", embedding_zip(4))})
    content, headers = body.read(), {"content-type": body.headers["content-type"], **KEY}

    def stalling() -> Iterator[bytes]:
        yield content[:-100]
        time.sleep(1.5)
        yield content[-100:]

    with in_a_thread(settings) as url:
        answer = httpx.post(f"{url}/datasets", content=stalling(), headers=headers, trust_env=False)
        assert (problem_of(answer)["status"], problem_of(answer)["code"]) == (408, "body_stalled")
        again = httpx.post(f"{url}/datasets", content=content, headers=headers, trust_env=False)
    assert again.status_code == 201
    assert list((settings.ecif_home / "blobs" / ".staging").iterdir()) == []


def test_a_hundred_at_once_make_one_job(settings: Settings, database: Database, dataset: str) -> None:
    with in_a_thread(settings) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:

        def post(_: object) -> Answer:
            while True:
                answer = client.post("/jobs", json={**SPEC, "dataset": dataset}, headers=KEY)
                if answer.status_code != 409:
                    return answer
                time.sleep(0.05)

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(post, range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


@pytest.mark.parametrize(
    ("dies_in", "jobs_left"),
    [
        ("service.jobs.endpoints.submit", 0),  # the key is claimed
        ("store.idempotency.finish", 0),  # the job is written, not committed
        ("doorbell.bell.Bell.ring", 1),  # committed, not answered
    ],
)
def test_a_crash_at_any_step_makes_no_second_job_and_blocks_no_key_for_ever(
    settings: Settings, database: Database, dataset: str, dies_in: str, jobs_left: int
) -> None:
    settings = settings.model_copy(update={"ecif_lease_seconds": 2.0})
    request: dict[str, Any] = {"json": {**SPEC, "dataset": dataset}, "headers": KEY, "trust_env": False}
    with in_a_process(settings, dies_in) as (url, _), pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/jobs", **request)
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == jobs_left
    with in_a_thread(settings) as url:
        deadline = time.monotonic() + 10
        while (answer := httpx.post(f"{url}/jobs", **request)).status_code == 409:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert answer.status_code == 202
    with database.transaction() as session:
        assert session.scalar(select(Job.id)) == answer.json()["id"]
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_whose_claim_was_taken_over_commits_nothing(
    client: TestClient, database: Database, dataset: str, monkeypatch: pytest.MonkeyPatch, problem_of: ProblemOf
) -> None:
    """The first holder was silent for longer than its lease, and comes back."""
    finish = idempotency.finish

    def late(session: Any, held: Any, fingerprint: Any, answer: Any) -> None:
        with database.transaction() as other:
            other.execute(update(IdempotencyKey).values(lease_until=func.now() - timedelta(seconds=1)))
        with database.transaction() as other:
            idempotency.claim_key(other, "POST /jobs", KEY["Idempotency-Key"], timedelta(seconds=0))
        finish(session, held, fingerprint, answer)

    monkeypatch.setattr(idempotency, "finish", late)
    request: dict[str, Any] = {"json": {**SPEC, "dataset": dataset}, "headers": KEY}
    assert problem_of(client.post("/jobs", **request))["code"] == "request_in_progress"
    assert client.get("/jobs").json()["total"] == 0
    monkeypatch.setattr(idempotency, "finish", finish)
    assert client.post("/jobs", **request).status_code == 202


@pytest.mark.parametrize(
    ("path", "filename", "content"),
    [
        ("/datasets", "a.csv", b"file_name,caption\n"),
        ("/models", "a.safetensors", save_file({"w": np.zeros(2, np.float32)})),
    ],
)
def test_a_commit_whose_answer_was_lost_keeps_its_upload(
    client: TestClient, blobs: Blobs, monkeypatch: pytest.MonkeyPatch, path: str, filename: str, content: bytes
) -> None:
    """Nobody knows at that moment whether it was done. The row may be there, so its bytes must be."""
    finish, unheard = idempotency.finish, []

    def finished(session: Any, *args: Any) -> None:
        finish(session, *args)
        unheard.append(session)

    def commit(connection: Any) -> None:
        if unheard:
            unheard.clear()
            connection.connection.driver_connection.commit()
            raise OperationalError("COMMIT", None, ConnectionError("the server closed the connection"))

    monkeypatch.setattr(idempotency, "finish", finished)
    event.listen(app_of(client).state.service.database.engine, "commit", commit)
    fields = {"architecture": "ViT-B-32"} if path == "/models" else {}
    request: dict[str, Any] = {"files": {"file": (filename, content)}, "data": fields, "headers": KEY}
    assert client.post(path, **request).status_code == 503
    again = client.post(path, **request)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    (stored,) = (name for name, _ in blobs.list(f"{path[1:]}/{again.json()['id']}"))
    assert blobs.get(stored) == content


@pytest.mark.parametrize(
    ("dies_in", "jobs_left", "orphans"),
    [
        ("service.jobs.endpoints.store_upload", 0, 0),  # the body is read, beside the blobs
        ("service.jobs.endpoints.new_dataset", 0, 1),  # its bytes are a blob, no row is written
        ("store.idempotency.finish", 0, 1),  # rows are written, not committed
        ("doorbell.bell.Bell.ring", 1, 0),  # committed, not answered
    ],
)
def test_a_crash_at_any_step_of_an_upload_makes_one_job_and_leaves_no_bytes(
    settings: Settings,
    client: TestClient,
    database: Database,
    blobs: Blobs,
    embedding_zip: EmbeddingZip,
    work: Work,
    dies_in: str,
    jobs_left: int,
    orphans: int,
) -> None:
    request: dict[str, Any] = {"files": form(embedding_zip(4)), "headers": KEY}
    silent_soon = settings.model_copy(update={"ecif_lease_seconds": 0.2})
    with in_a_process(silent_soon, dies_in) as (url, _), pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/jobs", **request, trust_env=False)
    assert client.get("/jobs").json()["total"] == jobs_left
    while (answer := client.post("/jobs", **request)).status_code == 409:
        time.sleep(0.1)
    assert answer.status_code == 202
    assert client.get("/jobs").json()["total"] == client.get("/datasets").json()["total"] == 1

    uploads = settings.ecif_home / "blobs" / "datasets"
    remove_abandoned(database, blobs)
    assert len(list(uploads.iterdir())) == 1 + orphans
    remove_abandoned(database, blobs, age=timedelta(0))
    assert [path.name for path in uploads.iterdir()] == [answer.json()["spec"]["dataset"]]
    assert [path for path in uploads.parent.rglob("*") if path.is_file()] == [*uploads.glob("*/upload")]
    work()
    assert client.get(f"/jobs/{answer.json()['id']}").json()["status"] == "succeeded"


def test_a_crash_after_a_model_was_kept_leaves_no_bytes(settings: Settings, database: Database, blobs: Blobs) -> None:
    request: dict[str, Any] = {
        "files": {"file": ("a.safetensors", save_file({"w": np.zeros(2, np.float32)}))},
        "trust_env": False,
    }
    with in_a_process(settings, "store.models.create") as (url, _), pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/models", **request, data={"architecture": "ViT-B-32"})
    assert len(list(blobs.list("models"))) == 1
    remove_abandoned(database, blobs, age=timedelta(0))
    assert list(blobs.list("models")) == list(blobs.list("pending")) == []
