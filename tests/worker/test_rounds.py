"""Solves in rounds of shards: the same numbers to the bit for any number of workers, also where some of them die."""

import threading
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from ecif.curvature import choice
from store import shards
from store.blobs import Blobs
from store.database import Database
from store.phases import OwnerKind
from store.settings import Settings
from store.tables import Shard
from tests.service_fixtures import EmbeddingZip, Upload
from worker.attempts.attempt import Workplace, work_once
from worker.attempts.lease import Lease

_PAIRS = 165
_METHODS = ["ecif", "neighbour_influence"]


class KilledError(BaseException):
    """The process of a worker is gone: nothing that it holds is told to anybody."""


@pytest.fixture(autouse=True)
def nothing_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a matrix would be factorised."""
    monkeypatch.setattr(choice, "WRITTEN_OUT", 0)
    monkeypatch.setattr(choice, "LARGEST", 0)


class Workers:
    """Threads that work until nothing is left. `mortal` die, each once, at a batch of a phase with rounds."""

    def __init__(self, settings: Settings, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.blobs, self.monkeypatch = settings, blobs, monkeypatch
        self.deaths: list[str] = []

    def work(self, count: int, *, rounds_from: float, deaths: tuple[int, ...] = ()) -> None:
        settings = self.settings.model_copy(update={"ecif_rounds_from": rounds_from})
        database = Database(settings.database_url, pool_size=3 * count)
        looks, check, lock = 0, Lease.check, threading.Lock()

        def checked(lease: Lease) -> None:
            nonlocal looks
            if lease._claim.owner.kind is OwnerKind.JOB and lease._claim.phase in ("fit", "curvature"):
                with lock:
                    looks += 1
                    dies = looks in deaths
                if dies:
                    self.deaths.append(f"{lease._claim.phase}.{lease._claim.round}")
                    raise KilledError
            check(lease)

        def work(number: int) -> None:
            place = Workplace(settings, database, self.blobs, worker=f"worker {number}")
            idle = 0
            while idle < 10:
                try:
                    idle = 0 if work_once(place) is not None else idle + 1
                except KilledError:
                    with database.transaction() as session:
                        shards.take_back_from(session, place.worker)
                if idle:
                    time.sleep(0.05)

        with self.monkeypatch.context() as patched:
            patched.setattr(Lease, "check", checked)
            threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        database.close()


@pytest.fixture
def workers(settings: Settings, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(settings, blobs, monkeypatch)


def _job(client: TestClient, train: str, clean: str, curvature: str) -> str:
    answer = client.post(
        "/jobs",
        json={
            "task": "valuation",
            "dataset": train,
            "validation": {"dataset": clean},
            "objective": {"batch_size": 5, "l2": 0.5, "temperature": 0.3},
            "fit": {"epochs": 3},
            "influence": {"curvature": curvature},
            "methods": _METHODS,
        },
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _scores(client: TestClient, job: str) -> dict[str, Any]:
    ended = client.get(f"/jobs/{job}").json()
    assert ended["status"] == "succeeded", ended["error"]
    rows = client.get(f"/jobs/{job}/results", params={"limit": _PAIRS}).json()["items"]
    columns = ("influence", "positive_influence", "negative_influence", "neighbour_influence", "self_influence")
    solved = {name: ended["summary"]["curvature"][name] for name in ("iterations", "relative_residual")}
    return {row["key"]: [row[name] for name in columns] for row in rows} | {"solved": solved}


@pytest.mark.parametrize(
    ("curvature", "crews"),
    [
        ("gauss_newton", [(1, ()), (2, ()), (3, (7, 60, 90, 133))]),
        ("hessian", [(2, (50,))]),
    ],
    ids=["gauss_newton", "hessian"],
)
def test_any_number_of_workers_gives_the_same_bits(
    client: TestClient,
    database: Database,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    workers: Workers,
    curvature: str,
    crews: list[tuple[int, tuple[int, ...]]],
) -> None:
    train, clean = upload(embedding_zip(_PAIRS, wrong=20))["id"], upload(embedding_zip(30, seed=1))["id"]
    alone = _job(client, train, clean, curvature)
    workers.work(1, rounds_from=1e18)
    expected = _scores(client, alone)
    assert len(expected) == _PAIRS + 1
    assert expected["solved"]["iterations"] > 1

    def rounds(job: str) -> dict[str, int]:
        with database.transaction() as session:
            rows = session.execute(
                select(Shard.phase, func.max(Shard.round)).where(Shard.job_id == job).group_by(Shard.phase)
            ).all()
        return {phase: last for phase, last in rows if last}

    assert rounds(alone) == {}
    for count, deaths in crews:
        job = _job(client, train, clean, curvature)
        workers.work(count, rounds_from=0, deaths=deaths)
        assert _scores(client, job) == expected
        made = rounds(job)
        # A round that sums and a step for every evaluation of the fit, and for every product of the solve.
        assert made["fit"] >= 2 * 2
        assert made["curvature"] >= 2 * expected["solved"]["iterations"]
    assert len(workers.deaths) == sum(len(deaths) for _, deaths in crews)
