"""What the sweeper does for those who fell silent, and with what was deleted."""

import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from doorbell.bell import Bell
from ecif import fit as fit_of_ecif
from store import shards
from store.blobs import Blobs
from store.database import Database
from store.phases import Lane
from store.settings import Settings
from store.tables import Dataset, Job, Pair, Result, Shard
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.analysis import fit
from worker.attempts.attempt import Workplace, work_once
from worker.sweeper import remove_abandoned, sweep


class Rings(Bell):
    """Counts instead of ringing; the real bell needs a broker."""

    def __init__(self) -> None:
        self.rung: Counter[Lane] = Counter()

    def ring(self, waiting: Mapping[Lane, int]) -> None:
        self.rung += Counter(waiting)


def test_it_rings_for_what_waits(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    database: Database,
    blobs: Blobs,
    settings: Settings,
) -> None:
    upload(embedding_zip(4))
    bell = Rings()
    sweep(database, blobs, bell, settings)
    assert bell.rung == {Lane.INGEST: 1}


def test_a_worker_that_vanishes_too_often_fails_the_job_and_names_the_shard(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    database: Database,
    blobs: Blobs,
    settings: Settings,
) -> None:
    dataset = upload(embedding_zip(4))
    few = settings.model_copy(update={"ecif_max_vanished": 2})
    for _ in range(2):
        with database.transaction() as session:
            assert shards.claim(session, worker="ghost", lease_seconds=0.01)
        time.sleep(0.05)
        sweep(database, blobs, Rings(), few)
    failed = client.get(f"/datasets/{dataset['id']}").json()
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "worker_vanished"
    assert "index shard 0" in failed["error"]["message"]


def test_a_poisoned_shard_ends_its_own_job_only(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    database: Database,
    blobs: Blobs,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = upload(embedding_zip(20))
    work()
    real = fit_of_ecif

    def poisoned(objective: Any, *args: Any, **kwargs: Any) -> Any:
        if objective.l2 == 0.666:
            raise RuntimeError("poison")
        return real(objective, *args, **kwargs)

    monkeypatch.setattr(fit, "fit", poisoned)
    monkeypatch.setattr("worker.attempts.attempt._RETRY_SECONDS", 0.0)
    spec = {"task": "misalignment", "dataset": dataset["id"]}
    bad = client.post("/jobs", json={**spec, "objective": {"l2": 0.666}}).json()["id"]
    good = client.post("/jobs", json=spec).json()["id"]
    work()
    assert client.get(f"/jobs/{good}").json()["status"] == "succeeded"
    failed = client.get(f"/jobs/{bad}").json()
    assert failed["status"] == "failed"
    assert failed["phase"] == "fit"
    assert failed["error"]["code"] == "shard_failed"
    assert "fit shard 0" in failed["error"]["message"]
    assert "after 3 attempts" in failed["error"]["message"]


def test_what_was_deleted_is_purged(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    database: Database,
    blobs: Blobs,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.sweeper._PURGE_ROWS", 7)
    dataset = upload(embedding_zip(20))
    job = client.post("/jobs", json={"task": "misalignment", "dataset": dataset["id"]}).json()
    work()
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 204
    sweep(database, blobs, Rings(), settings)
    page = client.get(f"/jobs/{job['id']}/results").json()
    assert page["total"] == len(page["items"]) == 20
    assert page["items"][0]["key"] is not None
    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    for _ in range(10):
        sweep(database, blobs, Rings(), settings)
    with database.transaction() as session:
        for table in (Dataset, Job, Pair, Result, Shard):
            assert session.scalar(select(func.count()).select_from(table)) == 0
    remove_abandoned(database, blobs, timedelta(0))  # the notes of what was purged
    assert [path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()] == []


def test_a_worker_without_work_says_so(database: Database, blobs: Blobs, settings: Settings) -> None:
    assert work_once(Workplace(settings, database, blobs)) is None


def test_what_a_worker_writes_after_the_purge_goes_too(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    database: Database,
    blobs: Blobs,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = upload(embedding_zip(4))["id"]
    put = blobs.put
    late: list[str] = []

    def put_late(name: str, content: bytes) -> None:
        if name.startswith("datasets/") and not late:
            late.append(name)
            assert client.delete(f"/datasets/{dataset}").status_code == 204
            sweep(database, blobs, Rings(), settings)
            with database.transaction() as session:
                assert session.get(Dataset, dataset) is None
        put(name, content)

    monkeypatch.setattr(blobs, "put", put_late)
    work()
    assert blobs.exists(late[0])
    remove_abandoned(database, blobs, timedelta(0))
    assert not [path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()]
