"""A worker that the database does not answer any more, over a link that can be held and cut."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from benchmarks.chaos.link import Link
from store import shards
from store.blobs import Blobs
from store.database import Database
from store.errors import LostLeaseError
from store.settings import Settings
from store.tables import Shard
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.analysis import plan
from worker.attempts.attempt import Workplace, work_once
from worker.attempts.lease import Lease


@pytest.fixture
def link(settings: Settings) -> Iterator[Link]:
    with Link(make_url(settings.database_url).port) as link:
        yield link


@pytest.fixture
def linked(settings: Settings, link: Link) -> Iterator[Database]:
    """The same database over the link."""
    database = Database(make_url(settings.database_url).set(port=link.port).render_as_string(hide_password=False))
    yield database
    database.close()


def _check_for(lease: Lease, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lease.check()
        time.sleep(0.02)


def test_a_lease_is_lost_in_time_though_its_renewal_hangs(
    linked: Database, link: Link, upload: Upload, embedding_zip: EmbeddingZip, settings: Settings
) -> None:
    upload(embedding_zip(4))
    with linked.transaction() as session:
        claim = shards.claim(session, worker="me", lease_seconds=30)
    with Lease(linked, claim, settings.model_copy(update={"ecif_lease_seconds": 0.5})) as lease:
        lease.check()
        link.hold()
        began = time.monotonic()
        with pytest.raises(LostLeaseError):
            _check_for(lease, seconds=10)
    assert time.monotonic() - began < 2
    link.release()


def test_a_database_that_goes_away_is_not_the_fault_of_the_shard(
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
    job = client.post("/jobs", json={"task": "misalignment", "dataset": dataset["id"], "fit": None}).json()
    real = plan.run
    deaths: list[Any] = []

    def disconnected(task: Any) -> Any:
        if len(deaths) < settings.ecif_max_raised:
            deaths.append(task)
            with task.database.transaction() as session:
                session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return real(task)

    monkeypatch.setattr("worker.analysis.plan.run", disconnected)
    monkeypatch.setattr("worker.attempts.setbacks.pause_seconds", lambda times: 0.0)
    while client.get(f"/jobs/{job['id']}").json()["phase"] in ("plan", None):
        assert work_once(Workplace(settings, database, blobs)) is not None
    with database.transaction() as session:
        shard = session.scalar(select(Shard).where(Shard.job_id == job["id"], Shard.phase == "plan"))
        assert shard.state == "done"
        assert (shard.raised, shard.vanished, shard.hindered) == (0, 0, settings.ecif_max_raised)
