"""Exports, reports and checkpoints take nothing from other requests: neither threads, nor the database for long."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.exports import endpoints
from service.exports.source import Source
from store import api_keys
from store.database import Database
from store.settings import Settings
from tests.service.serving import in_a_thread
from tests.service_fixtures import ProblemOf, app_of


class Held:
    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Exports that begin, and then compute until `go` is set; `begun` counts them."""
    held = Held()

    def chunks(_source: object) -> Iterator[str]:
        yield "first"
        held.begun.release()
        assert held.go.wait(60)
        yield "last"

    monkeypatch.setattr(Source, "of", lambda *_: SimpleNamespace(job_id="job_1", marks=""))
    monkeypatch.setitem(endpoints._FORMATS, "jsonl", endpoints._FORMATS["jsonl"]._replace(chunks=chunks))
    yield held
    held.go.set()


def export(url: str, **headers: Any) -> httpx.Response:
    return httpx.get(f"{url}/jobs/job_1/export?format=jsonl", headers=headers, trust_env=False, timeout=60)


def test_sixty_exports_at_work_leave_the_threads_of_other_requests_alone(settings: Settings, held: Held) -> None:
    """The pool that all endpoints share has forty threads."""
    with (
        in_a_thread(settings.model_copy(update={"ecif_max_heavy_requests": 60})) as url,
        ThreadPoolExecutor(60) as pool,
    ):
        answers = [pool.submit(export, url) for _ in range(60)]
        try:
            for _ in range(8):
                assert held.begun.acquire(timeout=30)
            for path in ("/healthz", "/jobs"):
                assert httpx.get(f"{url}{path}", trust_env=False, timeout=10).status_code == 200
        finally:
            held.go.set()
        assert {answer.result().text for answer in answers} == {"firstlast"}


def test_a_tenant_has_a_number_of_them_at_once_and_another_its_own(
    settings: Settings, database: Database, held: Held, problem_of: ProblemOf
) -> None:
    with database.transaction() as session:
        keys = [f"Bearer {api_keys.create(session, tenant, None)[1]}" for tenant in ("a", "b")]
    with in_a_thread(settings.model_copy(update={"ecif_max_heavy_requests": 2})) as url, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(export, url, authorization=keys[0]) for _ in range(2)]
        try:
            for _ in answers:
                assert held.begun.acquire(timeout=30)
            for path in ("export", "report", "checkpoint"):
                headers = {"authorization": keys[0]}
                refused = httpx.get(f"{url}/jobs/job_1/{path}", headers=headers, trust_env=False, timeout=10)
                assert problem_of(refused)["code"] == "too_many_heavy_requests"
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            answers.append(pool.submit(export, url, authorization=keys[1]))
            assert held.begun.acquire(timeout=30)
        finally:
            held.go.set()
        assert [answer.result().status_code for answer in answers] == [200] * 3
        assert export(url, authorization=keys[0]).status_code == 200


def test_one_that_ends_with_an_error_is_counted_no_longer(client: TestClient) -> None:
    for _ in range(20):
        assert client.get("/jobs/job_0/export").status_code == 404
    heavy = app_of(client).state.service.heavy
    assert heavy.count == 0


def test_a_statement_of_the_api_that_takes_too_long_is_a_problem(
    settings: Settings, database: Database, problem_of: ProblemOf
) -> None:
    bounded = settings.model_copy(update={"ecif_statement_seconds": 0.2})
    with in_a_thread(bounded) as url, database.transaction() as session:
        session.execute(text("LOCK TABLE jobs"))
        answer = httpx.get(f"{url}/jobs", trust_env=False, timeout=20)
    assert problem_of(answer)["code"] == "database_too_slow"
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


def test_statements_of_workers_take_as_long_as_they_take(settings: Settings, client: TestClient) -> None:
    def timeout(database: Database) -> str:
        with database.transaction() as session:
            return session.scalar(text("SHOW statement_timeout"))

    assert timeout(app_of(client).state.service.database) == "30s"
    workers = Database.from_settings(settings)
    assert timeout(workers) == "0"
    workers.close()
