"""Progress as it happens: server-sent events, which end with the job, the client or the server."""

import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service import events
from service.concurrency import Streams
from store.database import Database
from store.errors import LimitError
from store.settings import Settings
from tests.service.serving import in_a_process, in_a_thread
from tests.service_fixtures import EmbeddingZip, Upload, Work


def events_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream of lines, as browsers read them; a comment is the event `:`."""
    event = {}
    for line in lines:
        if line.startswith(":"):
            yield {"event": ":"}
        elif line:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value
        elif "data" in event:
            yield event
            event = {}


@pytest.fixture
def job(client: TestClient, upload: Upload, embedding_zip: EmbeddingZip) -> str:
    """Queued: nobody works on it yet."""
    dataset = upload(embedding_zip(40))["id"]
    return client.post("/jobs", json={"task": "misalignment", "dataset": dataset}).json()["id"]


def test_a_job_is_followed_to_its_end(settings: Settings, job: str, work: Work) -> None:
    patient = settings.model_copy(update={"ecif_stream_seconds": 60, "ecif_heartbeat_seconds": 0.02})
    with in_a_thread(patient) as url, httpx.stream("GET", f"{url}/jobs/{job}/events", trust_env=False) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.iter_lines())
        seen = [next(events)]
        worker = threading.Thread(target=work)
        worker.start()
        seen += events
        worker.join()
    assert [event["event"] for event in seen] == ["progress"] * (len(seen) - 1) + ["end"]
    assert (seen[0]["data"]["status"], seen[0]["data"]["phase"]) == ("queued", "ingest")
    assert seen[-1]["data"] == {
        "id": job,
        "status": "succeeded",
        "phase": None,
        "progress": {"done": 40, "total": 40, "unit": "pairs"},
        "error": None,
    }
    assert len(seen) > 3
    assert len({event["id"] for event in seen}) == len(seen)


def test_whoever_has_seen_the_end_is_told_not_to_come_back(client: TestClient, job: str, work: Work) -> None:
    first = list(events_of(client.get(f"/jobs/{job}/events").text.splitlines()))
    assert [event["event"] for event in first] == ["progress"]  # and then the stream had lasted long enough
    again = client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": first[0]["id"]})
    assert not list(events_of(again.text.splitlines()))
    work()
    (end,) = events_of(client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": first[0]["id"]}).text.splitlines())
    assert end["event"] == "end"
    assert client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": end["id"]}).status_code == 204


def test_a_comment_is_sent_while_nothing_happens_and_a_deleted_job_ends_it(
    client: TestClient, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUIET_SECONDS", 0.1)
    sent = list(events_of(client.get(f"/jobs/{job}/events").text.splitlines()))
    assert {event["event"] for event in sent[1:]} == {":"}
    client.delete(f"/jobs/{job}")
    assert client.get(f"/jobs/{job}/events").status_code == 404


def test_no_connection_is_held_and_what_is_left_is_not_counted_any_more(
    settings: Settings, job: str, database: Database
) -> None:
    patient = settings.model_copy(update={"ecif_stream_seconds": 60, "ecif_max_streams": 3})
    with in_a_thread(patient) as url, httpx.Client(base_url=url, trust_env=False) as http:
        streams = ExitStack()
        lines = [streams.enter_context(http.stream("GET", f"/jobs/{job}/events")).iter_lines() for _ in range(3)]
        assert all(next(each).startswith("retry") for each in lines)
        problem = http.get(f"/jobs/{job}/events")
        assert (problem.status_code, problem.json()["code"]) == (429, "too_many_streams")
        busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        deadline, held = time.monotonic() + 10, 3
        while held:  # a stream that looks just now has one for a moment
            assert time.monotonic() < deadline
            with database.transaction() as session:
                held = session.scalar(text(busy))
        streams.close()
        deadline, status = time.monotonic() + 10, 429
        while status == 429:
            assert time.monotonic() < deadline
            with http.stream("GET", f"/jobs/{job}/events") as answer:
                status = answer.status_code
        assert status == 200


def test_a_server_that_is_told_to_end_does_not_wait_for_streams(settings: Settings, job: str) -> None:
    patient = settings.model_copy(update={"ecif_stream_seconds": 60})
    with (
        in_a_process(patient) as (url, process),
        httpx.stream("GET", f"{url}/jobs/{job}/events", trust_env=False) as answer,
    ):
        events = events_of(answer.iter_lines())
        assert next(events)["event"] == "progress"
        process.send_signal(signal.SIGTERM)
        assert list(events) == []
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_stream_is_counted_while_it_lasts() -> None:
    streams = Streams(1)
    with streams.one_more("ours"):
        with pytest.raises(LimitError):
            streams.one_more("ours").__enter__()
        with streams.one_more("theirs"):
            assert streams.count == 2
    assert streams.count == 0
