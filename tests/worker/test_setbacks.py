"""What an attempt's failure is blamed on, and what comes of it."""

import errno
import threading
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import results
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.states import Setback
from store.tables import Shard
from tests.service_fixtures import Work
from worker.analysis import load
from worker.attempts import setbacks
from worker.attempts.attempt import Workplace, work_once


def of_database(code: str) -> Exception:
    return psycopg.errors.lookup(code)("what the server says")


@pytest.mark.parametrize(
    ("error", "setback"),
    [
        (of_database("40P01"), Setback.HINDERED),
        (of_database("53100"), Setback.HINDERED),
        (of_database("53300"), Setback.HINDERED),
        (of_database("57014"), Setback.HINDERED),
        (of_database("57P01"), Setback.HINDERED),
        (of_database("08006"), Setback.HINDERED),
        (of_database("25P03"), Setback.HINDERED),
        (of_database("58030"), Setback.HINDERED),
        (psycopg.OperationalError("the connection is closed"), Setback.HINDERED),
        (OperationalError("COPY …", {}, of_database("40001")), Setback.HINDERED),
        (OSError(errno.ENOSPC, "No space left on device"), Setback.HINDERED),
        (OSError(errno.EMFILE, "Too many open files"), Setback.HINDERED),
        (of_database("23505"), Setback.RAISED),
        (of_database("22021"), Setback.RAISED),
        (of_database("XX000"), Setback.RAISED),
        (psycopg.ProgrammingError("no such column"), Setback.RAISED),
        (FileNotFoundError("a blob"), Setback.RAISED),
        (ValueError("poison"), Setback.RAISED),
        (MemoryError(), Setback.EXHAUSTED),
        (torch.OutOfMemoryError("CUDA out of memory"), Setback.EXHAUSTED),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Setback.EXHAUSTED),
        (RuntimeError("CUDA error: out of memory"), Setback.EXHAUSTED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Setback.EXHAUSTED),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), Setback.EXHAUSTED),
    ],
    ids=lambda value: value if isinstance(value, Setback) else getattr(value, "sqlstate", None) or str(value)[:20],
)
def test_each_failure_is_blamed_on_what_failed(error: Exception, setback: Setback) -> None:
    assert setbacks.setback_of(error) is setback
    wrapped = RuntimeError("while doing something")
    wrapped.__cause__ = error
    assert setbacks.setback_of(wrapped) is setback


def test_an_allocator_is_recognised_and_not_quoted() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert setbacks.setback_of(caught.value) is Setback.EXHAUSTED
    assert setbacks.for_people(caught.value) == "it needs more memory than there is"


def test_pauses_grow_to_a_minute() -> None:
    assert [setbacks.pause_seconds(times) for times in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.fixture
def shard_of(database: Database) -> Callable[[str, str], Shard]:
    def find(job: str, phase: str) -> Shard:
        with database.transaction() as session:
            return session.scalar(select(Shard).where(Shard.job_id == job, Shard.phase == phase))

    return find


def test_a_copy_that_deadlocks_is_done_again_and_counts_for_nothing(
    client: TestClient, job: str, work: Work, shard_of: Callable[[str, str], Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = results.load
    deadlocks: list[Any] = []

    def deadlocking(session: Session, rows: Any) -> Any:
        if len(deadlocks) < 4:  # more often than a shard may raise
            deadlocks.append(True)
            raise of_database("40P01")
        return copy(session, rows)

    monkeypatch.setattr(results, "load", deadlocking)
    monkeypatch.setattr(setbacks, "pause_seconds", lambda _: 0.0)
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    shard = shard_of(job, "load")
    assert (shard.hindered, shard.raised, shard.vanished) == (4, 0, 0)


def test_a_full_disk_is_waited_for_but_not_for_ever(
    client: TestClient,
    job: str,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    shard_of: Callable[[str, str], Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_task: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("worker.analysis.plan.run", full)
    monkeypatch.setattr(setbacks, "pause_seconds", lambda _: 0.0)
    few = settings.model_copy(update={"ecif_max_hindered": 6})
    while work_once(Workplace(few, database, blobs)) is not None:
        pass
    failed = client.get(f"/jobs/{job}").json()
    assert failed["error"]["code"] == "held_up"
    assert failed["error"]["message"] == "plan shard 0 was held up 6 times in a row, lastly because the disk is full"
    assert shard_of(job, "plan").raised == 0


def test_what_runs_out_of_memory_is_tried_twice_and_told_without_an_allocator(
    client: TestClient, job: str, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def large(_task: object) -> None:
        attempts.append(True)
        torch.empty(10**15)

    monkeypatch.setattr("worker.analysis.plan.run", large)
    monkeypatch.setattr("worker.attempts.attempt._RETRY_SECONDS", 0.0)
    work()
    failed = client.get(f"/jobs/{job}").json()
    assert failed["error"]["code"] == "out_of_memory"
    assert "plan shard 0 ran out of memory 2 times" in failed["error"]["message"]
    assert "alloc" not in failed["error"]["message"].lower()
    assert len(attempts) == 2


def test_a_long_copy_holds_neither_the_job_nor_the_shard(
    client: TestClient, job: str, settings: Settings, database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for the job, cancels it or renews the lease does not wait for the copy."""
    copy, copying, go_on = results.load, threading.Event(), threading.Event()

    def slow(session: Session, rows: Any) -> Any:
        count = copy(session, rows)
        copying.set()
        assert go_on.wait(10)
        return count

    monkeypatch.setattr(results, "load", slow)
    place = Workplace(settings, database, blobs)

    def work() -> None:
        while work_once(place) is not None:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    assert copying.wait(30)
    with database.transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '500ms'"))
        session.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job})
        session.execute(text("SELECT 1 FROM shards WHERE job_id = :id FOR UPDATE"), {"id": job})
    go_on.set()
    thread.join()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


def test_rows_of_an_attempt_that_died_before_its_end_are_written_once(
    client: TestClient, job: str, work: Work, shard_of: Callable[[str, str], Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load.run
    died: list[Any] = []

    def dies_at_its_end(task: Any) -> Any:
        done = run(task)
        if not died:
            died.append(True)
            raise of_database("57P01")
        return done

    monkeypatch.setattr(load, "run", dies_at_its_end)
    monkeypatch.setattr(setbacks, "pause_seconds", lambda _: 0.0)
    work()
    assert died
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    page = client.get(f"/jobs/{job}/results", params={"limit": 100}).json()
    assert [row["rank"] for row in page["items"]] == list(range(1, 21))


def test_a_server_that_is_not_there_is_told_without_a_class_of_ours() -> None:
    reason = setbacks.for_people(httpx.ConnectError("All connection attempts failed"))
    assert reason == (
        "the server that it is fetched from cannot be reached, or breaks off (All connection attempts failed)"
    )
