"""`/metrics`: what Prometheus reads, of the whole service, for whoever runs it."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text

from service.metrics import DatabaseGauges
from store import api_keys, gauges, shards
from store.database import Database
from tests.service_fixtures import Answer, EmbeddingZip, Upload, Work


def samples(answer: Answer) -> dict[tuple[Any, ...], float]:
    """Every sample by its name and labels."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_work_that_waits_and_work_that_is_done_are_told(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work, database: Database
) -> None:
    first = upload(embedding_zip(10))["id"]
    client.post("/jobs", json={"task": "misalignment", "dataset": first, "fit": None})
    waiting = samples(client.get("/metrics"))
    assert waiting[("ecif_jobs", ("status", "queued"))] == 1
    assert waiting[("ecif_datasets", ("status", "ingesting"))] == 1
    assert waiting[("ecif_shards_waiting",)] == 1
    assert waiting[("ecif_oldest_wait_seconds",)] > 0
    work()
    with database.transaction() as session:
        now = gauges.read(session)
    assert (now.jobs["queued"], now.jobs["succeeded"], now.jobs["failed"]) == (0, 1, 0)
    assert (now.shards_waiting, now.shards_running, now.oldest_wait_seconds) == (0, 0, 0)
    assert now.datasets == {"ingesting": 0, "ready": 1, "failed": 0}
    assert now.upload_bytes == len(embedding_zip(10))


def test_what_workers_have_done_is_read_from_their_rows(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work, database: Database
) -> None:
    upload(embedding_zip(10))
    with database.transaction() as session:
        first = shards.claim(session, worker="w", lease_seconds=60)
    assert first is not None
    with database.transaction() as session:
        shards.take_back_from(session, "w")
    work()
    seen = samples(client.get("/metrics"))
    phase = ("phase", str(first.phase))
    assert seen[("ecif_recent_shards", phase)] == 1
    assert seen[("ecif_recent_attempts", phase)] == 2
    assert seen[("ecif_setbacks", ("reason", "vanished"))] == 1
    assert seen[("ecif_setbacks", ("reason", "raised"))] == 0
    assert seen[("ecif_recent_units", ("phase", "register"), ("unit", "pairs"))] == 10
    assert 0 < seen[("ecif_recent_longest_shard_seconds", phase)] <= seen[("ecif_recent_shard_seconds", phase)]
    assert seen[("ecif_recent_memory_bytes", phase)] > 1e6
    assert ("ecif_recent_device_memory_bytes", phase) not in seen, "no GPU was used"
    assert seen[("ecif_recent_shards", ("phase", "score"))] == 0, "nothing done is said as well"
    with database.transaction() as session:
        session.execute(text("UPDATE shards SET finished_at = finished_at - interval '11 minutes'"))
        past = gauges.read(session)
    assert {done.shards for done in past.work.values()} == {0}
    assert past.setbacks["vanished"] == 0


def test_requests_are_counted_by_the_route_as_it_is_declared(client: TestClient) -> None:
    for path in ("/jobs/one", "/jobs/two", "/nowhere/at/all", "/jobs?limit=0", "/jobs?a=%00"):
        client.get(path)
    client.request("PURGE", "/jobs")
    seen = samples(client.get("/metrics"))
    counts = {key[1:]: value for key, value in seen.items() if key[0] == "ecif_http_requests_total"}

    def count(method: str, route: str, status: str) -> float:
        return counts[(("method", method), ("route", route), ("status", status))]

    assert count("GET", "/jobs/{job_id}", "404") == 2
    assert count("GET", "none", "404") == 1
    assert count("GET", "none", "400") == 1
    assert count("GET", "/jobs", "422") == 1
    assert sum(value for key, value in counts.items() if ("method", "other") in key) == 1
    timed = ("ecif_http_request_seconds_count", ("method", "GET"), ("route", "/jobs/{job_id}"))
    assert seen[timed] == 2


def test_what_fails_here_is_counted_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.jobs.get", lambda *_: 1 / 0)
    assert client.get("/jobs/one").status_code == 500
    key = ("ecif_http_requests_total", ("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "500"))
    assert samples(client.get("/metrics"))[key] == 1


def test_the_database_is_asked_once_in_a_few_seconds() -> None:
    reads, now = [], [0.0]
    nothing = gauges.Gauges({}, {}, 0, 0, 0, 0.0)

    def read() -> gauges.Gauges:
        reads.append(1)
        return nothing

    state = DatabaseGauges(read, clock=lambda: now[0])
    for moment, times in ((0.0, 1), (4.9, 1), (5.1, 2), (9.0, 2)):
        now[0] = moment
        list(state.collect())
        assert len(reads) == times


def test_four_statements_tell_it_all(database: Database) -> None:
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with database.transaction() as session:
        gauges.read(session)
    assert len(statements) == 4


@pytest.mark.parametrize(("tenant", "status"), [("default", 200), ("lab", 403)])
def test_with_keys_only_the_operator_reads_them(
    client: TestClient, database: Database, tenant: str, status: int
) -> None:
    with database.transaction() as session:
        secret = api_keys.create(session, tenant, None)[1]
    assert client.get("/metrics").status_code == 401
    keyed = TestClient(client.app, headers={"Authorization": f"Bearer {secret}"})
    assert keyed.get("/metrics").status_code == status


def test_what_tenants_have_adds_up_and_names_none_of_them(
    client: TestClient, database: Database, embedding_zip: EmbeddingZip
) -> None:
    for tenant in ("first-of-them", "second-of-them", "default"):
        with database.transaction() as session:
            headers = {"Authorization": f"Bearer {api_keys.create(session, tenant, None)[1]}"}
        client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}, headers=headers)
    answer = client.get("/metrics", headers=headers)
    assert samples(answer)[("ecif_datasets", ("status", "ingesting"))] == 3
    assert "of-them" not in answer.text
