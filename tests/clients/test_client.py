"""`Client` and `AsyncClient`: what they ask, what they try again, and what they say when it does not help."""

import asyncio
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ecif_client import (
    ApiError,
    AsyncClient,
    Client,
    JobFailedError,
    MissingPackageError,
    UnreachableError,
    UsageError,
    WaitedTooLongError,
    answers,
)
from service.datasets.schemas import DatasetOut, PairOut
from service.deliveries import AttemptOut, DeliveryOut, WebhookSecretOut
from service.events import EventOut
from service.jobs.estimates import EstimateOut, PhaseEstimateOut
from service.jobs.schemas import JobOut
from service.models import ModelOut
from service.results import ResultOut
from tests.clients.answering import Answers, answering, as_json
from tests.clients.cutting import Cutting
from tests.service.exporting import World
from tests.service_fixtures import EmbeddingZip

PACKAGE = Path(__file__).parents[2] / "clients" / "python" / "ecif_client"
HTML = (200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
JOB = {"id": "job_1", "status": "running", "error": None}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecif_client.retrying._pause", lambda _state: 0.0)


def test_one_key_makes_one_job(client: Client, world: World, embedding_zip: EmbeddingZip) -> None:
    spec = {"task": "misalignment", "dataset": world.upload(embedding_zip(20)), "fit": None}
    first = client.submit(spec, idempotency_key="step 7")
    assert client.submit(spec, idempotency_key="step 7")["id"] == first["id"]
    assert client.submit(spec)["id"] != client.submit(spec)["id"]
    with pytest.raises(ApiError) as refused:
        client.submit({**spec, "task": "valuation"}, idempotency_key="step 7")
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")
    newest = list(islice(client.jobs(), 3))
    assert {job["id"] for job in newest} > {first["id"]}
    for job in newest:
        assert client.cancel(job["id"])["status"] == "cancelled"
    with pytest.raises(JobFailedError, match="cancelled: on request"):
        client.wait(first["id"])
    client.delete_job(first["id"])
    with pytest.raises(ApiError, match="there is no job"):
        client.job(first["id"])


def test_results_are_an_iterator_and_a_table(client: Client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = client.results(job, limit=7)  # of 60, so page by page
    assert next(rows)["rank"] == 1
    assert [row["rank"] for row in rows] == list(range(2, 61))
    flagged = list(client.results(job, flagged=True))
    assert 0 < len(flagged) < 60
    table = client.results(job, sort="suspicion", order="desc").to_pandas()
    assert table.shape[0] == 60
    assert table["suspicion"].is_monotonic_decreasing
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ecif-client\[pandas\]'"):
        client.results(job).to_pandas()


def test_events_go_on_over_a_stream_that_breaks(
    client: Client, world: World, embedding_zip: EmbeddingZip, cutting: Callable[..., Cutting], job: str
) -> None:
    assert [event["status"] for event in client.events(job)] == ["succeeded"]
    waiting = client.submit({"task": "misalignment", "dataset": world.upload(embedding_zip(20)), "fit": None})
    with Client(cutting(down=700).url) as other:
        states = other.events(waiting["id"])
        assert next(states)["status"] == "queued"
        world.work()
        assert list(states)[-1]["status"] == "succeeded"
    assert client.wait(waiting["id"])["status"] == "succeeded"
    assert client.report(waiting["id"]).startswith("<!doctype html>")
    assert list(client.deliveries(waiting["id"])) == []
    secret = client.webhook_secret()["secret"]
    rotated = client.rotate_webhook_secret(keep_seconds=60, idempotency_key="once")
    assert rotated["previous"] is not None
    assert rotated["previous"]["secret"] == secret
    assert client.rotate_webhook_secret(keep_seconds=60, idempotency_key="once") == rotated


def test_the_asynchronous_client_does_the_same(
    server: str, world: World, job: str, tmp_path: Path, embedding_zip: EmbeddingZip, client: Client
) -> None:
    (tmp_path / "train.zip").write_bytes(embedding_zip(20, seed=5))

    async def everything() -> dict[str, Any]:
        async with AsyncClient(server) as other:
            dataset = await other.upload(tmp_path / "train.zip")
            submitted = await other.submit({"task": "misalignment", "dataset": dataset["id"], "fit": None})
            await asyncio.to_thread(world.work)
            ended, others = await asyncio.gather(other.wait(submitted["id"]), other.wait(job))
            assert ended["status"] == others["status"] == "succeeded"
            assert [event["status"] async for event in other.events(job)] == ["succeeded"]
            await other.export(job, tmp_path / "scores.csv")
            with pytest.raises(ApiError):
                await other.job("job_absent")
            table = await other.results(job, limit=13).to_pandas()
            return {"dataset": dataset["id"], "ranks": list(table["rank"])}

    done = asyncio.run(everything())
    assert done["ranks"] == list(range(1, 61))
    assert client.upload(tmp_path / "train.zip")["id"] == done["dataset"]
    client.export(job, tmp_path / "again.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_one_is_made_of_the_other(tmp_path: Path) -> None:
    """`make format` was run after a change."""
    copy = tmp_path / "ecif_client"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    runpy.run_path(str(PACKAGE.parent / "without_async.py"))["make"](copy)
    configuration = ["--quiet", "--config", str(PACKAGE.parent / "pyproject.toml"), str(copy / "_sync")]
    subprocess.run([sys.executable, "-m", "ruff", "check", "--fix", "--select", "I", *configuration], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", *configuration], check=True)
    for path in sorted((PACKAGE / "_sync").glob("*.py")):
        assert (copy / "_sync" / path.name).read_text() == path.read_text(), path.name
    assert "await" not in (PACKAGE / "_sync" / "client.py").read_text()


def tried(given: Answers) -> int:
    with Client(given.url) as client:
        assert client.job("job_1")["id"] == "job_1"
    return len(given.requests)


def test_what_a_busy_service_turns_away_is_sent_again() -> None:
    busy = as_json({"title": "Too Many Requests", "status": 429}, 429, Retry_After="0")
    down = (502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>")
    with answering(busy, down, as_json(JOB)) as given:
        assert tried(given) == 3
    with answering(down) as given:
        with pytest.raises(UnreachableError, match="not well"):
            tried(given)
        assert len(given.requests) == 5
    with answering(as_json({"detail": "no", "status": 500, "code": "internal_error"}, 500)) as given:
        with pytest.raises(UnreachableError, match="not well: no"):
            tried(given)
        assert len(given.requests) == 1


def test_a_post_that_is_sent_again_has_the_same_key() -> None:
    busy = as_json({"title": "Service Unavailable", "status": 503}, 503)
    with answering(busy, busy, as_json(JOB, 202)) as given, Client(given.url) as client:
        client.submit({"task": "misalignment"})
        client.submit({"task": "misalignment"})
    keys = [headers["Idempotency-Key"] for _, headers in given.requests]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_pause_is_as_long_as_the_service_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pauses: list[tuple[str, float]] = []
    busy = as_json({"title": "Too Many Requests", "status": 429}, 429, Retry_After="0")

    def on_retry(error: Exception, seconds: float) -> None:
        pauses.append((str(error), seconds))

    with answering(busy, as_json(JOB)) as given, Client(given.url, on_retry=on_retry) as client:
        client.job("job_1")
    assert pauses == [("Too Many Requests", 0.0)]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (HTML, UnreachableError, "answers text/html, and not as ECIF does"),
        ((404, {"Content-Type": "text/html"}, b"<html>"), ApiError, "404 Not Found, and not as ECIF does"),
        ((307, {"Location": "https://elsewhere.example"}, b""), UnreachableError, "sends on to https://elsewhere"),
        (as_json([1]), UnreachableError, "not as ECIF does"),
        (as_json({"items": []}), UnreachableError, "not as ECIF does"),
        (as_json("no", 400), ApiError, "400 Bad Request, and not as ECIF does"),
        (as_json({"detail": "two\nlines", "status": 422}, 422), ApiError, "^two lines$"),
        (
            as_json({"detail": "a (and 1 more)", "errors": [{"loc": ["body", "a"], "msg": "x"},
                                                           {"loc": ["body", "b", 0], "msg": "y"}]}, 422),
            ApiError,
            "^a: x; b.0: y$",
        ),
    ],
)  # fmt: skip
def test_an_answer_of_somebody_else_is_said_in_a_line(
    answer: tuple[int, dict[str, str], bytes], error: type[Exception], words: str
) -> None:
    with answering(answer) as given, Client(given.url) as client, pytest.raises(error, match=words):
        client.job("job_1")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:99999", "", "http://a\nb"])
def test_an_address_is_checked_before_it_is_used(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a service"):
        Client(url)


def test_a_key_or_an_id_that_cannot_be_one_is_said(client: Client) -> None:
    with pytest.raises(UsageError, match="API key"):
        Client("http://localhost", key="schlüssel")
    for name in ("", "..", "job_1/results", "job 1"):
        with pytest.raises(UsageError, match="is no id of jobs"):
            client.job(name)


def test_waiting_ends() -> None:
    with (
        answering(as_json(JOB, Retry_After="1")) as given,
        Client(given.url) as other,
        pytest.raises(WaitedTooLongError, match="still running"),
    ):
        other.wait("job_1", seconds=0.5)


@pytest.mark.parametrize(
    ("typed", "answered"),
    [
        (answers.Job, JobOut),
        (answers.Event, EventOut),
        (answers.Dataset, DatasetOut),
        (answers.Pair, PairOut),
        (answers.Result, ResultOut),
        (answers.Model, ModelOut),
        (answers.Delivery, DeliveryOut),
        (answers.Attempt, AttemptOut),
        (answers.WebhookSecret, WebhookSecretOut),
        (answers.Estimate, EstimateOut),
        (answers.PhaseEstimate, PhaseEstimateOut),
    ],
)
def test_types_name_the_fields_that_are_answered(typed: Any, answered: type[BaseModel]) -> None:
    """A field that the service gets is a line in `ecif_client/answers.py`."""
    assert set(typed.__annotations__) == set(answered.model_fields)


def test_results_come_within_bounds_and_in_the_columns_asked_for(client: Client, job: str) -> None:
    scores = [row["suspicion"] for row in client.results(job)]
    cut = sorted(scores)[-10]
    rows = [dict(row) for row in client.results(job, columns=["key", "suspicion"], min_suspicion=cut, limit=4)]
    assert [row["suspicion"] for row in rows] == [score for score in scores if score >= cut]
    assert {name for row in rows for name in row} == {"rank", "key", "suspicion"}
