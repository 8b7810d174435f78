"""How long things are kept: deadlines and `ttl`, purges that do not stop each other, results apart, pruned shards."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update

from store import datasets, jobs, models
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.states import DeliveryStatus
from store.tables import Dataset, Delivery, Job, Model, Result, Shard
from tests.service_fixtures import EmbeddingZip, Upload, Work
from tests.worker.conftest import Sweeping
from worker import pipeline
from worker.attempts.attempt import Workplace, work_once


@pytest.fixture
def ready(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> str:
    dataset = upload(embedding_zip(20))["id"]
    work()
    return dataset


@pytest.fixture
def submit(client: TestClient, ready: str) -> Callable[..., str]:
    def post(**fields: Any) -> str:
        spec = {"task": "misalignment", "dataset": ready, "fit": None, "methods": ["clip_score"], **fields}
        answer = client.post("/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    return post


def test_a_job_that_misses_its_deadline_fails_and_says_so(
    client: TestClient,
    submit: Callable[..., str],
    sweeping: Sweeping,
    settings: Settings,
    database: Database,
    blobs: Blobs,
) -> None:
    job, other = submit(deadline=0.2), submit(deadline=3600)
    assert work_once(Workplace(settings, database, blobs)) is not None
    time.sleep(0.25)
    sweeping()
    failed = client.get(f"/jobs/{job}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "deadline")
    assert failed["error"]["message"] == "the job did not end within its deadline of 0.2 s"
    assert client.get(f"/jobs/{other}").json()["status"] in ("queued", "running")
    with database.transaction() as session:
        assert session.scalar(select(func.count()).where(Shard.job_id == job, Shard.state == "queued")) == 0


def test_a_job_is_deleted_when_its_ttl_is_over(
    client: TestClient, submit: Callable[..., str], work: Work, sweeping: Sweeping, database: Database
) -> None:
    job, other = submit(ttl=0.1), submit(ttl=3600)
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    time.sleep(0.15)
    sweeping()
    sweeping()
    assert client.get(f"/jobs/{job}").status_code == 404
    assert client.get(f"/jobs/{other}").status_code == 200
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_a_job_outlives_its_ttl_until_its_receiver_is_told(
    client: TestClient, submit: Callable[..., str], work: Work, sweeping: Sweeping, database: Database
) -> None:
    job = submit(ttl=0.1, notify={"url": "https://receiver.example.org/ended"})
    work()
    time.sleep(0.15)
    sweeping()
    assert client.get(f"/jobs/{job}").status_code == 200
    with database.transaction() as session:
        session.execute(update(Delivery).values(status=DeliveryStatus.DELIVERED))
    sweeping()
    assert client.get(f"/jobs/{job}").status_code == 404


def test_what_a_failed_job_has_left_counts_and_how_far_it_came_stays(
    client: TestClient,
    submit: Callable[..., str],
    database: Database,
    blobs: Blobs,
    settings: Settings,
    sweeping: Sweeping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = submit(task="valuation", validation={"fraction": 0.5}, methods=["ecif", "clip_score"])

    def poisoned(_task: object) -> None:
        raise ValueError("poison")

    monkeypatch.setattr("worker.analysis.rank.run", poisoned)
    monkeypatch.setattr("worker.attempts.attempt._RETRY_SECONDS", 0.0)
    while work_once(Workplace(settings, database, blobs)) is not None:
        pass
    failed = client.get(f"/jobs/{job}").json()
    assert (failed["status"], failed["phase"], failed["progress"]) == (
        "failed",
        "rank",
        {"done": 0, "total": 10, "unit": "pairs"},
    )
    with database.transaction() as session:
        assert session.scalar(select(Job.kept_bytes).where(Job.id == job)) > 0
    sweeping(ecif_shards_kept_seconds=0)
    assert client.get(f"/jobs/{job}").json() == failed


def test_a_phase_whose_end_nobody_saw_is_ended_by_the_sweeper(
    client: TestClient, submit: Callable[..., str], sweeping: Sweeping, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "advance", lambda *_: None)  # as if each of two had thought the other still at work
        work()
    assert client.get(f"/jobs/{job}").json()["phase"] == "plan"
    sweeping()
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


def test_what_cannot_be_deleted_stops_only_itself(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    sweeping: Sweeping,
    blobs: Blobs,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck, *others = [upload(embedding_zip(4))["id"] for _ in range(5)]
    work()
    for dataset in (stuck, *others):
        assert client.delete(f"/datasets/{dataset}").status_code == 204
    delete = blobs.delete_prefix

    def refuses(prefix: str) -> None:
        if stuck in prefix:
            raise PermissionError(prefix)
        delete(prefix)

    monkeypatch.setattr(blobs, "delete_prefix", refuses)
    sweeping()
    with database.transaction() as session:
        assert session.scalars(select(Dataset.id)).all() == [stuck]
        session.execute(update(Dataset).values(purge_after=func.now()))
    monkeypatch.undo()
    sweeping()
    with database.transaction() as session:
        assert session.scalars(select(Dataset.id)).all() == []


def test_the_results_of_a_large_job_lie_apart_and_are_dropped_with_it(
    client: TestClient,
    submit: Callable[..., str],
    settings: Settings,
    database: Database,
    blobs: Blobs,
    sweeping: Sweeping,
) -> None:
    small = submit()
    while work_once(Workplace(settings, database, blobs)) is not None:
        pass
    large = submit()
    apart = settings.model_copy(update={"ecif_results_apart": 20})
    while work_once(Workplace(apart, database, blobs)) is not None:
        pass

    def partitions() -> Sequence[str]:
        with database.transaction() as session:
            names = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'results'::regclass ORDER BY 1"
            return session.scalars(text(names)).all()

    def rows(job: str, **query: Any) -> list[dict[str, Any]]:
        return client.get(f"/jobs/{job}/results", params=query).json()["items"]

    with database.transaction() as session:
        number = session.scalar(select(Job.number).where(Job.id == large))
        counts = session.execute(select(Result.apart, func.count()).group_by(Result.apart).order_by(Result.apart)).all()
    assert counts == [(0, 20), (number, 20)]
    assert partitions() == [f"results_{number}", "results_shared"]
    for query in ({}, {"sort": "clip_score"}, {"flagged": True}, {"key": "3"}):
        expected = [row | {"suspicion": None} for row in rows(small, **query)]
        assert [row | {"suspicion": None} for row in rows(large, **query)] == expected
    export = client.get(f"/jobs/{large}/export", params={"format": "jsonl"}).text
    assert export.count("\n") == 20
    assert client.delete(f"/jobs/{large}").status_code == 204
    reading = database.engine.connect()
    reading.execute(text("SELECT count(*) FROM results WHERE apart = 0"))
    sweeping()  # somebody reads: the table stays for a while, and is empty
    with database.transaction() as session:
        assert session.scalar(text(f"SELECT count(*) FROM results_{number}")) == 0  # noqa: S608
        session.execute(update(Job).values(purge_after=None))
    reading.close()
    sweeping()
    assert partitions() == ["results_shared"]
    assert len(rows(small)) == 20


def test_the_records_of_finished_work_are_pruned_and_nothing_of_a_job_is_missed(
    client: TestClient,
    submit: Callable[..., str],
    work: Work,
    sweeping: Sweeping,
    database: Database,
    settings: Settings,
    blobs: Blobs,
) -> None:
    job = submit()
    work()
    before = client.get(f"/jobs/{job}").json()
    waiting = submit()
    sweeping(ecif_shards_kept_seconds=0)
    with database.transaction() as session:
        assert session.scalars(select(Shard.job_id).distinct()).all() == [waiting]
    assert client.get(f"/jobs/{job}").json() == before
    assert len(client.get(f"/jobs/{job}/results").json()["items"]) == 20
    work()
    assert client.get(f"/jobs/{waiting}").json()["status"] == "succeeded"


def test_a_late_failure_does_not_undo_what_is_ready(client: TestClient, ready: str, database: Database) -> None:
    error = {"code": "late", "message": "too late", "param": None}
    with database.transaction() as session:
        datasets.fail_ingest(session, ready, error)
        models.create(session, model_id="model_1", name=None, architecture="ViT-B-32")
        models.finish_check(session, "model_1")
        models.fail(session, "model_1", error)
        assert session.get(Model, "model_1").status == "ready"
    found = client.get(f"/datasets/{ready}").json()
    assert (found["status"], found["error"], found["pair_count"]) == ("ready", None, 20)


def test_jobs_whose_beginning_was_lost_are_begun_by_the_sweeper(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    database: Database,
    sweeping: Sweeping,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = upload(embedding_zip(20))["id"]
    spec = {"task": "misalignment", "dataset": dataset, "fit": None, "methods": ["clip_score"]}
    job = client.post("/jobs", json=spec).json()["id"]
    monkeypatch.setattr(jobs, "not_begun", lambda *_args, **_kwargs: [])  # as if the worker had died right there
    work()
    monkeypatch.undo()
    assert client.get(f"/datasets/{dataset}").json()["status"] == "ready"
    assert client.get(f"/jobs/{job}").json()["status"] == "queued"
    sweeping()
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
