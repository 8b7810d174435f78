"""`/readyz` looks at what the service depends on at most once a second, and says when it is away."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.recent import Recent
from store.database import Database


def test_the_database_is_asked_once_a_second_however_many_ask(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings: list[float] = []
    away = False

    def ping(_: Database) -> None:
        pings.append(time.monotonic())
        if away:
            raise OperationalError("SELECT 1", None, Exception("gone"))

    monkeypatch.setattr(Database, "ping", ping)
    began = time.monotonic()
    answers = [client.get("/readyz") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(pings) <= 1 + (time.monotonic() - began)
    away = True
    time.sleep(1.05)
    asked: Any = client.get("/readyz")
    assert (asked.status_code, asked.json()["status"]) == (503, "unready")
    assert client.get("/readyz").status_code == 503, "what is kept keeps its status"


def test_what_was_read_is_good_for_its_time() -> None:
    now, reads = [0.0], [0]

    def read() -> int:
        reads[0] += 1
        now[0] += 3.0  # longer than it is good for
        return reads[0]

    recent = Recent(read, 1.0, clock=lambda: now[0])
    assert [recent(), recent()] == [1, 1]
    now[0] += 0.9
    assert recent() == 1
    now[0] += 0.2
    assert recent() == 2


def test_of_those_who_ask_at_once_one_reads() -> None:
    together, reads = threading.Barrier(8), []

    def read() -> int:
        time.sleep(0.05)
        reads.append(1)
        return len(reads)

    recent = Recent(read, 60.0)

    def ask(_: int) -> int:
        together.wait()
        return recent()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [1] * 8


def test_a_failure_is_not_kept() -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        if len(reads) == 1:
            raise ValueError("away")
        return len(reads)

    recent = Recent(read, 60.0)
    with pytest.raises(ValueError, match="away"):
        recent()
    assert [recent(), recent()] == [2, 2]
