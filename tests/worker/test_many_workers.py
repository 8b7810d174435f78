"""Many workers at one large job, without any fault: nobody loses a lease, and everything is done once."""

import threading
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import results, shards
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import Result, Shard
from tests.service_fixtures import EmbeddingZip, Upload
from tests.worker.conftest import Sweeping
from worker.analysis import load
from worker.attempts.attempt import Workplace, work_once

_WORKERS = 16
# Sixteen who wait for each other wait longer than that; who is starved by other tests on the same cores does not.
_LEASE_SECONDS = 10.0
_COPY_SECONDS = 0.8


@pytest.fixture
def loading(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A job whose results are about to be loaded, in 100 shards of which each takes a while."""
    monkeypatch.setattr(load, "_ROWS_A_SHARD", 2)
    dataset = upload(embedding_zip(200))["id"]
    spec = {"task": "misalignment", "dataset": dataset, "fit": None, "methods": ["clip_score"]}
    job = client.post("/jobs", json=spec).json()["id"]
    while client.get(f"/jobs/{job}").json()["phase"] != "load":
        work_once(Workplace(settings, database, blobs))
    copy = results.load

    def slow(session: Session, rows: Any) -> Any:
        time.sleep(_COPY_SECONDS)
        return copy(session, rows)

    monkeypatch.setattr(results, "load", slow)
    return job


def test_no_lease_is_lost_without_a_fault(
    client: TestClient,
    loading: str,
    settings: Settings,
    blobs: Blobs,
    sweeping: Sweeping,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    short = settings.model_copy(update={"ecif_lease_seconds": _LEASE_SECONDS, "ecif_heartbeat_seconds": 0.2})
    shared = Database(settings.database_url, pool_size=3 * _WORKERS)
    request.addfinalizer(shared.close)
    ended = threading.Event()

    def work(number: int) -> None:
        place = Workplace(short, shared, blobs, worker=f"worker {number}")
        while not ended.is_set():
            if work_once(place) is None:
                time.sleep(0.02)

    def take_back() -> None:
        while not ended.wait(0.2):
            sweeping(ecif_lease_seconds=_LEASE_SECONDS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_WORKERS)]
    threads.append(threading.Thread(target=take_back))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 120
    while client.get(f"/jobs/{loading}").json()["status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join()
    job = client.get(f"/jobs/{loading}").json()
    assert job["status"] == "succeeded", job["error"]
    with shared.transaction() as session:
        lost = session.execute(
            select(func.count(), func.sum(Shard.vanished), func.max(Shard.attempt)).where(Shard.phase == "load")
        ).one()
        assert tuple(lost) == (100, 0, 1)
        assert session.scalar(select(func.count()).select_from(Result)) == 200
        assert shards.waiting(session, 1).total() == 0
    assert "the lease is lost" not in caplog.text
