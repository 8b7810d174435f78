"""Whoever asked is told of a job's end: real receivers, which check signatures with the public library."""

import base64
import hashlib
import hmac
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update
from standardwebhooks import Webhook, WebhookVerificationError

from store import deliveries
from store.blobs import Blobs
from store.database import Database
from store.deliveries import PAUSES_SECONDS
from store.settings import Settings
from store.shared_secrets import webhook_secrets
from store.tables import Delivery, Job, WebhookSecret
from tests.receiving import Receiver
from tests.receiving import receiver as a_receiver
from tests.service_fixtures import EmbeddingZip, ProblemOf, Refusing, Upload, Work
from tests.worker.conftest import Silent
from worker.outbound import webhooks
from worker.outbound.webhooks import NoticeSender
from worker.sweeper import sweep

Submit = Callable[..., str]
Cancelled = Callable[[str], str]
Deliver = Callable[[], int]
Later = Callable[[], None]
DeliveryOf = Callable[[str], dict[str, Any]]

GUIDE = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of an operator who lets this machine be told."""
    return settings.model_copy(update={"ecif_private_receivers": True})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as made:
        yield made


@pytest.fixture
def dataset(upload: Upload, embedding_zip: EmbeddingZip) -> str:
    """Not ingested: a job on it waits until somebody does."""
    return upload(embedding_zip(24))["id"]


@pytest.fixture
def submit(client: TestClient, dataset: str) -> Submit:
    def ask(url: str, **spec: Any) -> str:
        asked = {"task": "misalignment", "dataset": dataset, "fit": None, "notify": {"url": url}, **spec}
        answer = client.post("/jobs", json=asked)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    return ask


@pytest.fixture
def ended(client: TestClient, submit: Submit) -> Cancelled:
    """A job that was cancelled, which is the quickest end; returns its id."""

    def end(url: str) -> str:
        job = submit(url)
        client.post(f"/jobs/{job}/cancel")
        return job

    return end


@pytest.fixture
def secret(client: TestClient) -> str:
    return client.get("/webhook-secret").json()["secret"]


@pytest.fixture
def deliver(database: Database, settings: Settings) -> Deliver:
    """Send what is due; return how many that were."""

    def all_of_it() -> int:
        count = 0
        while (claimed := webhooks.claim(database, [])) is not None:
            webhooks.deliver(database, settings, claimed)
            count += 1
        return count

    return all_of_it


@pytest.fixture
def later(database: Database) -> Later:
    """Let the pause go by."""

    def go() -> None:
        with database.transaction() as session:
            session.execute(update(Delivery).values(not_before=func.now()))

    return go


@pytest.fixture
def delivery(client: TestClient) -> DeliveryOf:
    def of(job: str) -> dict[str, Any]:
        page = client.get(f"/jobs/{job}/deliveries").json()
        assert (page["total"], page["next_cursor"]) == (1, None)
        return page["items"][0]

    return of


def test_a_job_that_succeeded_is_told_and_verified(
    client: TestClient,
    submit: Submit,
    work: Work,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    job = submit(receiver.url)
    assert client.get(f"/jobs/{job}/deliveries").json() == {"items": [], "next_cursor": None, "total": 0}
    work()
    assert deliver() == 1
    (told,) = receiver.received
    event = Webhook(secret).verify(told.body, told.headers)
    seen = client.get(f"/jobs/{job}").json()
    assert (event["type"], event["timestamp"]) == ("job.succeeded", seen["finished_at"])
    data = event["data"]
    same = ("id", "task", "status", "error", "created_at", "started_at", "finished_at")
    assert {name: data[name] for name in same} == {name: seen[name] for name in same}
    assert data["summary"]["counts"] == seen["summary"]["counts"]
    assert (data["results"], data["flagged"]) == (24, seen["summary"]["counts"]["flagged"])
    assert client.get(data["url"]).json() == seen
    assert (told.path, told.headers["content-type"]) == ("/hook?token=s3cret", "application/json")
    found = delivery(job)
    assert (found["id"], found["status"], found["next_attempt_at"]) == (told.headers["webhook-id"], "delivered", None)
    assert [attempt["status_code"] for attempt in found["attempts"]] == [204]
    assert "s3cret" not in str(found)
    assert found["id"] in caplog.text
    assert "s3cret" not in caplog.text
    assert "/hook" not in caplog.text
    assert secret not in caplog.text
    assert deliver() == 0


def test_a_job_that_failed_says_why(
    client: TestClient,
    submit: Submit,
    upload: Upload,
    work: Work,
    deliver: Deliver,
    receiver: Receiver,
    secret: str,
) -> None:
    broken = upload(b"PK\3\4 no zip at all")["id"]
    submit(receiver.url, dataset=broken)
    work()
    deliver()
    event = Webhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)
    assert (event["type"], event["data"]["status"], event["data"]["flagged"]) == ("job.failed", "failed", None)
    assert event["data"]["error"]["message"].startswith(f"dataset {broken} failed: ")


def test_the_signature_is_that_of_the_specification(
    ended: Cancelled, deliver: Deliver, receiver: Receiver, secret: str
) -> None:
    ended(receiver.url)
    deliver()
    (told,) = receiver.received
    signed = b".".join([told.headers["webhook-id"].encode(), told.headers["webhook-timestamp"].encode(), told.body])
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert len(key) == 32
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert told.headers["webhook-signature"] == f"v1,{expected}"
    assert b'"type":"job.cancelled"' in told.body


def test_every_tenant_has_a_secret_of_its_own(client: TestClient, database: Database, secret: str) -> None:
    with database.transaction() as session:
        assert [active.secret for active in webhook_secrets(session, "default")] == [secret]
        assert [active.secret for active in webhook_secrets(session, "other")] != [secret]
    assert client.get("/webhook-secret").headers["cache-control"] == "no-store"


def test_after_a_rotation_both_secrets_verify_until_the_old_one_ends(
    client: TestClient,
    ended: Cancelled,
    deliver: Deliver,
    receiver: Receiver,
    secret: str,
    database: Database,
) -> None:
    rotated = client.post("/webhook-secret/rotate", headers={"Idempotency-Key": "1"})
    assert (rotated.status_code, rotated.headers["cache-control"]) == (201, "no-store")
    new = rotated.json()["secret"]
    assert new != secret
    assert len(base64.b64decode(new.removeprefix("whsec_"))) == 32
    assert rotated.json()["previous"]["secret"] == secret
    assert client.get("/webhook-secret").json() == rotated.json()
    assert client.post("/webhook-secret/rotate", headers={"Idempotency-Key": "1"}).json() == rotated.json()
    ended(receiver.url)
    deliver()
    (told,) = receiver.received
    assert len(told.headers["webhook-signature"].split(" ")) == 2
    for active in (secret, new):
        assert Webhook(active).verify(told.body, told.headers)["type"] == "job.cancelled"
    with database.transaction() as session:
        session.execute(
            update(WebhookSecret).where(WebhookSecret.expires_at.is_not(None)).values(expires_at=func.now())
        )
    assert client.get("/webhook-secret").json() == {"secret": new, "previous": None}
    ended(receiver.url)
    deliver()
    told = receiver.received[-1]
    assert Webhook(new).verify(told.body, told.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(told.body, told.headers)


def test_two_secrets_at_most_are_active_and_one_may_end_at_once(client: TestClient, secret: str) -> None:
    first = client.post("/webhook-secret/rotate").json()["secret"]
    second = client.post("/webhook-secret/rotate").json()
    assert second["previous"]["secret"] == first
    third = client.post("/webhook-secret/rotate?keep_seconds=0").json()
    assert third["previous"] is None
    assert len({secret, first, second["secret"], third["secret"]}) == 4
    assert client.post("/webhook-secret/rotate?keep_seconds=-1").status_code == 422


def test_a_resolver_that_hangs_ends_with_the_delivery(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "_SECONDS", 0.4)
    over, resolved = threading.Event(), threading.Event()

    def hang(*_: object, **__: Any) -> None:
        over.wait(60)
        resolved.set()
        raise OSError("no answer from the name server")

    monkeypatch.setattr("worker.outbound.addresses.socket.getaddrinfo", hang)
    job = ended("https://hooks.example.org/x")
    began = time.monotonic()
    deliver()
    took = time.monotonic() - began
    over.set()
    assert resolved.wait(10)
    assert took < 3
    assert delivery(job)["attempts"][0]["error"] == "no answer within 0.4 seconds"


def test_a_receiver_that_fails_is_told_again_after_growing_pauses(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    later: Later,
    receiver: Receiver,
    secret: str,
) -> None:
    receiver.statuses = [500, 429]
    receiver.headers = {"Retry-After": "1000"}
    job = ended(receiver.url)
    for pause in (1000, 1000):
        before = datetime.now(UTC)
        assert deliver() == 1
        found = delivery(job)
        assert found["status"] == "waiting"
        due = datetime.fromisoformat(found["next_attempt_at"]) - before
        assert timedelta(0) <= due - timedelta(seconds=pause) < timedelta(seconds=10)
        assert deliver() == 0
        later()
    assert deliver() == 1
    found = delivery(job)
    assert found["status"] == "delivered"
    assert [attempt["status_code"] for attempt in found["attempts"]] == [500, 429, 204]
    assert len({told.headers["webhook-id"] for told in receiver.received}) == 1
    assert len({told.body for told in receiver.received}) == 1
    for told in receiver.received:
        Webhook(secret).verify(told.body, told.headers)


def test_tries_end(
    client: TestClient,
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    later: Later,
    receiver: Receiver,
) -> None:
    job = ended(receiver.url)
    receiver.statuses = [503] * 100
    for pause in PAUSES_SECONDS:
        before = datetime.now(UTC)
        assert deliver() == 1
        due = (datetime.fromisoformat(delivery(job)["next_attempt_at"]) - before).total_seconds()
        assert pause <= due <= pause * 1.1 + 10
        later()
    assert deliver() == 1
    assert (delivery(job)["status"], len(delivery(job)["attempts"])) == ("failed", 1 + len(PAUSES_SECONDS))
    assert deliver() == 0
    assert sum(PAUSES_SECONDS) > 3 * 24 * 3600


def test_a_receiver_that_is_gone_is_left_alone_until_it_is_asked_for(
    client: TestClient,
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
) -> None:
    receiver.statuses = [410]
    job = ended(receiver.url)
    assert deliver() == 1
    found = delivery(job)
    assert found["status"] == "failed"
    assert deliver() == 0
    answer = client.post(f"/jobs/{job}/deliveries/{found['id']}/replay")
    assert (answer.status_code, answer.json()["status"]) == (202, "waiting")
    assert deliver() == 1
    assert delivery(job)["status"] == "delivered"
    assert client.post(f"/jobs/{job}/deliveries/{found['id']}/replay").status_code == 202
    assert deliver() == 1
    assert [attempt["status_code"] for attempt in delivery(job)["attempts"]] == [410, 204, 204]
    assert len({told.headers["webhook-id"] for told in receiver.received}) == 1


def test_a_replay_while_it_is_being_sent_is_not_swallowed(
    client: TestClient,
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
) -> None:
    job = ended(receiver.url)
    replay = f"/jobs/{job}/deliveries/{delivery(job)['id']}/replay"
    receiver.meanwhile = lambda: client.post(replay) if len(receiver.received) == 1 else None
    assert deliver() == 2
    assert (delivery(job)["status"], len(delivery(job)["attempts"])) == ("delivered", 2)


def test_only_the_latest_attempts_are_kept(
    client: TestClient,
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "_ATTEMPTS_KEPT", 2)
    receiver.statuses = [500, 501, 502]
    job = ended(receiver.url)
    for _ in range(3):
        client.post(f"/jobs/{job}/deliveries/{delivery(job)['id']}/replay")
        deliver()
    assert [attempt["status_code"] for attempt in delivery(job)["attempts"]] == [501, 502]


def test_redirects_are_not_followed(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
) -> None:
    with a_receiver() as other:
        receiver.statuses, receiver.headers = [307], {"Location": other.url}
        job = ended(receiver.url)
        deliver()
        assert other.received == []
    (attempt,) = delivery(job)["attempts"]
    assert (delivery(job)["status"], attempt["status_code"]) == ("waiting", 307)
    assert "redirect" in attempt["error"]


@pytest.mark.parametrize("trickle", [None, b"H"])
def test_a_receiver_that_hangs_is_given_up_in_time(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    monkeypatch: pytest.MonkeyPatch,
    trickle: bytes | None,
) -> None:
    """Also one that sends a byte now and then."""
    monkeypatch.setattr(webhooks, "_SECONDS", 0.4)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang() -> None:
            connection, _ = listening.accept()
            with connection, suppress(ConnectionError):  # given up before `over`
                while not over.wait(0.1):
                    if trickle:
                        connection.sendall(trickle)

        thread = threading.Thread(target=hang)
        thread.start()
        job = ended(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        began = time.monotonic()
        deliver()
        took = time.monotonic() - began
        over.set()
        thread.join()
    assert took < 3
    (attempt,) = delivery(job)["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (None, "no answer within 0.4 seconds")


def test_nobody_there(ended: Cancelled, deliver: Deliver, delivery: DeliveryOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = ended(f"http://127.0.0.1:{port}/")
    deliver()
    (attempt,) = delivery(job)["attempts"]
    assert attempt["status_code"] is None
    assert "connect" in attempt["error"].lower()


def test_what_speaks_another_protocol_is_not_quoted(ended: Cancelled, deliver: Deliver, delivery: DeliveryOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-secret\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        job = ended(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        deliver()
        thread.join()
    assert delivery(job)["attempts"][0]["error"] == "RemoteProtocolError"


def test_a_crash_between_sending_and_recording_sends_it_again(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    later: Later,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    job = ended(receiver.url)
    with monkeypatch.context() as patched:
        patched.setattr(deliveries, "record", killed)
        with pytest.raises(KilledError):
            deliver()
    assert delivery(job)["status"] == "waiting"
    assert deliver() == 0  # somebody may still be at it
    later()
    assert deliver() == 1
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert delivery(job)["status"] == "delivered"


def test_private_addresses_are_refused_by_default(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    database: Database,
    settings: Settings,
    receiver: Receiver,
) -> None:
    job = ended(receiver.url)
    closed = settings.model_copy(update={"ecif_private_receivers": False})
    webhooks.deliver(database, closed, webhooks.claim(database, []))
    assert receiver.received == []
    (attempt,) = delivery(job)["attempts"]
    assert attempt["error"] == "127.0.0.1 is not at a public address"


def test_http_is_for_private_addresses_only(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [(0, 0, 0, "", ("93.184.215.14", 80))]
    monkeypatch.setattr("worker.outbound.addresses.socket.getaddrinfo", lambda *_, **__: entries)
    job = ended("http://hooks.example.org/x")
    deliver()
    assert "https only" in delivery(job)["attempts"][0]["error"]


@pytest.mark.parametrize(
    "url", ["hooks.example.org/x", "ftp://hooks.example.org/x", "https://", "https://me:secret@hooks.example.org/x",
            "https://hooks.example.org/x#y", "https://hooks.example.org/a b", "https://hooks.example.org:99999/x"],
)  # fmt: skip
def test_a_url_that_is_none_is_a_422(refusing: Refusing, problem_of: ProblemOf, url: str) -> None:
    answer = refusing.client.post("/jobs", json={"task": "misalignment", "dataset": "ds_x", "notify": {"url": url}})
    problem = problem_of(answer)
    assert (problem["status"], problem["code"]) == (422, "invalid_uri")
    assert problem["errors"][0]["loc"] == ["body", "notify", "url"]
    assert "secret" not in answer.text


def test_a_receiver_that_hangs_delays_no_other(
    ended: Cancelled,
    delivery: DeliveryOf,
    database: Database,
    settings: Settings,
    receiver: Receiver,
    blobs: Blobs,
) -> None:
    """Of five notices to one that hangs four are under way, and the other receiver is told at once; so is a sweep."""

    over = threading.Event()
    with a_receiver() as hanging:
        hanging.meanwhile = lambda: over.wait(20)
        jobs = [ended(hanging.url) for _ in range(5)]
        other = ended(receiver.url)
        made = NoticeSender(database, settings)
        try:
            _until(lambda: receiver.received and len(hanging.received) == 4)
            began = time.monotonic()
            sweep(database, blobs, Silent(), settings)
            assert time.monotonic() - began < 5
            _until(lambda: delivery(other)["status"] == "delivered")
            assert len(hanging.received) == 4
            over.set()
            _until(lambda: all(delivery(job)["status"] == "delivered" for job in jobs))
        finally:
            over.set()
            made.close()
    assert len(hanging.received) == 5


def test_a_tenant_whose_receivers_all_hang_delays_no_other_tenant(
    ended: Cancelled,
    delivery: DeliveryOf,
    database: Database,
    settings: Settings,
    receiver: Receiver,
) -> None:
    """Five receivers that hang, four notices each: with all places shared, sixteen of them took every one."""
    over = threading.Event()
    with ExitStack() as open_ones:
        hanging = [open_ones.enter_context(a_receiver()) for _ in range(5)]
        for each in hanging:
            each.meanwhile = lambda: over.wait(20)
            for _ in range(4):
                ended(each.url)
        other = ended(receiver.url)
        with database.transaction() as session:
            session.execute(update(Job).where(Job.id == other).values(tenant="other"))
            session.execute(update(Delivery).where(Delivery.job_id == other).values(tenant="other"))
        made = NoticeSender(database, settings)
        try:
            _until(lambda: receiver.received)
            _until(lambda: sum(len(each.received) for each in hanging) == 8)
            with database.transaction() as session:
                (waiting,) = deliveries.tenants_due(session)
            assert waiting == "default"
        finally:
            over.set()
            made.close()


def test_claims_go_to_the_tenant_with_fewest_under_way(database: Database) -> None:
    def claimed_with(*under_way: tuple[str, str]) -> tuple[str, str] | None:
        claimed = webhooks.claim(database, [_under_way(*each) for each in under_way])
        return (claimed.tenant, claimed.receiver) if claimed else None

    with database.transaction() as session:
        for n, (tenant, receiver) in enumerate([*[("a", "slow")] * 9, ("a", "quick"), ("b", "slow")]):
            session.add(
                Delivery(
                    id=f"msg_{n:02d}", job_id="job", tenant=tenant, event="job.failed", url=f"https://{receiver}/",
                    receiver=receiver, body="", status="waiting",
                    not_before=datetime.now(UTC) - timedelta(seconds=60 - n),
                )
            )  # fmt: skip
    assert claimed_with() == ("a", "slow")
    assert claimed_with(("a", "slow")) == ("b", "slow")
    assert claimed_with(*[("a", "slow")] * 4) == ("a", "quick")
    assert claimed_with(*[("a", "slow")] * 4) is None
    assert claimed_with(*[("a", "other")] * 8) is None
    assert claimed_with(*[("a", "other")] * 7) == ("a", "slow")


def _under_way(tenant: str, receiver: str) -> deliveries.Claimed:
    return deliveries.Claimed("msg", 1, tenant, "job", f"https://{receiver}/", receiver, "")


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_deletes_a_job_is_told_nothing(
    client: TestClient,
    submit: Submit,
    ended: Cancelled,
    deliver: Deliver,
    receiver: Receiver,
    settings: Settings,
) -> None:
    for job in (ended(receiver.url), submit(receiver.url)):
        assert client.delete(f"/jobs/{job}").status_code == 204
    assert deliver() == 0


def test_the_receiver_of_the_guide(
    ended: Cancelled,
    deliver: Deliver,
    delivery: DeliveryOf,
    receiver: Receiver,
    secret: str,
    tmp_path: Path,
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"WEBHOOK_SECRET": secret, "PORT": str(port)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=output, stderr=output)
    try:
        _until(lambda: _listens(port))
        job = ended(f"http://127.0.0.1:{port}/")
        deliver()
        assert delivery(job)["status"] == "delivered"
    finally:
        process.kill()
        process.wait()
    assert f"job.cancelled /jobs/{job}\n" in log.read_text()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
