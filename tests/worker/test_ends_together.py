"""Ends that meet: two datasets of one job, and a worker that is frozen in the middle of a transaction."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from store import datasets
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import Shard
from tests.service_fixtures import EmbeddingZip, Upload
from tests.worker.conftest import Sweeping
from worker.attempts.attempt import Workplace, work_once

_FREEZES = """
import time
from store import results
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from worker.attempts.attempt import Workplace, work_once

settings = Settings()
copy = results.load

def held(session, rows):
    count = copy(session, rows)
    print("copied", flush=True)
    time.sleep(1)
    return count

results.load = held
database = Database.from_settings(settings, name="frozen")
place = Workplace(settings, database, Blobs.from_settings(settings), worker="frozen")
while work_once(place) is not None:
    pass
"""


def test_two_datasets_of_one_job_that_end_at_once_do_not_wait_for_each_other(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = upload(embedding_zip(20))["id"], upload(embedding_zip(10))["id"]
    spec = {"task": "misalignment", "dataset": one, "validation": {"dataset": other}, "fit": None}
    job = client.post("/jobs", json={**spec, "methods": ["clip_score"]}).json()["id"]
    place = Workplace(settings, database, blobs)
    together, finish = threading.Barrier(2), datasets.finish_ingest

    def at_once(session: Any, dataset_id: Any, found: Any) -> None:
        finish(session, dataset_id, found)
        session.flush()
        together.wait(10)  # both hold the row of their dataset now

    monkeypatch.setattr(datasets, "finish_ingest", at_once)

    def work() -> None:
        while True:
            if work_once(place) is None and client.get(f"/jobs/{job}").json()["status"] not in ("queued", "running"):
                return

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result(60)
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    with database.transaction() as session:
        setbacks = session.execute(select(Shard.raised, Shard.hindered, Shard.vanished)).all()
    assert set(setbacks) == {(0, 0, 0)}


@pytest.fixture
def frozen(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    settings: Settings,
    database: Database,
    blobs: Blobs,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(job, process): a worker that was stopped by SIGSTOP with its results copied and not committed."""
    short = settings.model_copy(update={"ecif_lease_seconds": 1.0})
    dataset = upload(embedding_zip(20))["id"]
    spec = {"task": "misalignment", "dataset": dataset, "fit": None, "methods": ["clip_score"]}
    job = client.post("/jobs", json=spec).json()["id"]
    while client.get(f"/jobs/{job}").json()["phase"] != "load":
        work_once(Workplace(settings, database, blobs))
    environment = {name.upper(): str(value) for name, value in short.model_dump().items()}
    process = subprocess.Popen([sys.executable, "-c", _FREEZES], env=environment, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "copied\n"
        process.send_signal(signal.SIGSTOP)
        yield job, process
        process.kill()


def test_a_worker_that_is_frozen_in_a_transaction_holds_nobody_up(
    client: TestClient,
    frozen: tuple[str, subprocess.Popen[str]],
    settings: Settings,
    database: Database,
    blobs: Blobs,
    sweeping: Sweeping,
) -> None:
    job, process = frozen
    began = time.monotonic()
    while client.get(f"/jobs/{job}").json()["status"] == "running" and time.monotonic() - began < 30:
        sweeping()
        work_once(Workplace(settings, database, blobs))
        time.sleep(0.1)
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    process.send_signal(signal.SIGCONT)
    process.wait(60)  # it would end its copy now, and commit what another has written meanwhile
    page = client.get(f"/jobs/{job}/results", params={"limit": 100}).json()
    assert [row["rank"] for row in page["items"]] == list(range(1, 21))
