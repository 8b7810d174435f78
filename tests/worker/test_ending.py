"""A shard that must end before it is done: cancelled, or its process is told to end."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from doorbell.bell import SESSION_SECONDS, SHARD_HARD_LIMIT_SECONDS, celery_application
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import Shard
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.attempts.attempt import Workplace, work_once
from worker.attempts.lease import Lease
from worker.attempts.stop import Stop

AtFirst = Callable[..., list[str]]

VALUATION = {
    "task": "valuation",
    "validation": {"fraction": 0.25},
    "methods": ["ecif", "tracin"],
    "objective": {"batch_size": 8},
    "fit": {"epochs": 30},
}


@pytest.fixture
def job(client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> str:
    dataset = upload(embedding_zip(48))
    work()
    return client.post("/jobs", json={**VALUATION, "dataset": dataset["id"]}).json()["id"]


@pytest.fixture
def at_the_first_batch_of(monkeypatch: pytest.MonkeyPatch) -> AtFirst:
    """Do something when a phase looks for the first time whether it may go on; returns how often it has looked."""

    def arrange(phase: str, then: Callable[[Lease], object]) -> list[str]:
        looks, check = [], Lease.check

        def checked(self: Lease) -> None:
            if self._claim.phase == phase:
                looks.append(phase)
                if len(looks) == 1:
                    then(self)
            check(self)

        monkeypatch.setattr(Lease, "check", checked)
        return looks

    return arrange


@pytest.mark.parametrize("phase", ["fit", "curvature", "baselines", "score"])
def test_a_cancelled_job_is_left_at_the_next_batch(
    client: TestClient, job: str, work: Work, at_the_first_batch_of: AtFirst, phase: str
) -> None:
    def cancel(lease: Lease) -> None:
        client.post(f"/jobs/{job}/cancel")
        lease._thread.join(timeout=10)  # it ends when a renewal finds out

    looks = at_the_first_batch_of(phase, cancel)
    work()
    assert looks == [phase]
    ended = client.get(f"/jobs/{job}").json()
    assert (ended["status"], ended["phase"]) == ("cancelled", phase)


@pytest.mark.parametrize("phase", ["fit", "curvature"])
def test_a_process_that_must_end_hands_its_shard_back_and_takes_no_other(
    client: TestClient,
    job: str,
    work: Work,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    at_the_first_batch_of: AtFirst,
    phase: str,
) -> None:
    place = Workplace(settings, database, blobs)
    before = signal.getsignal(signal.SIGUSR2)
    place.stop.listen()
    try:

        def ask_twice(_: object) -> None:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)

        at_the_first_batch_of(phase, ask_twice)
        while work_once(place) is not None:
            pass
    finally:
        signal.signal(signal.SIGUSR2, before)
    with database.transaction() as session:
        shard = session.scalar(select(Shard).where(Shard.phase == phase))
        assert (shard.state, shard.attempt, shard.raised, shard.vanished) == ("queued", 1, 0, 0)
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


def test_asked_once_a_process_finishes_what_it_has_and_begins_nothing(
    client: TestClient,
    job: str,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    at_the_first_batch_of: AtFirst,
) -> None:
    place = Workplace(settings, database, blobs, Stop())
    at_the_first_batch_of("fit", lambda _: place.stop._on_signal(signal.SIGUSR2, None))
    while work_once(place) is not None:
        pass
    with database.transaction() as session:
        states = dict(session.execute(select(Shard.phase, Shard.state).where(Shard.job_id == job)).all())
    assert states == {"plan": "done", "fit": "done", "curvature": "queued"}


def test_a_lease_is_renewed_while_its_shard_is_worked_on(
    client: TestClient,
    job: str,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    at_the_first_batch_of: AtFirst,
) -> None:
    """A shard may take longer than its lease."""
    short = settings.model_copy(update={"ecif_lease_seconds": 0.6, "ecif_heartbeat_seconds": 0.1})
    at_the_first_batch_of("fit", lambda _: time.sleep(1.0))
    while work_once(Workplace(short, database, blobs)) is not None:
        pass
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


def test_a_shard_has_its_hour_however_long_its_process_has_been_at_work(settings: Settings) -> None:
    limits = celery_application(settings).conf
    assert limits.task_time_limit - SESSION_SECONDS == SHARD_HARD_LIMIT_SECONDS == 3600
    assert limits.task_time_limit < limits.broker_transport_options["visibility_timeout"]
