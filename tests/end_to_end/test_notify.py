"""The sweeper of a running service tells of ended jobs."""

import time
from pathlib import Path

import httpx
from standardwebhooks import Webhook

from ecif_client.cli import main
from standalone.stack import Stack
from tests.receiving import receiver
from tests.service_fixtures import EmbeddingZip


def test_who_asks_is_told(stack: Stack, http: httpx.Client, embedding_zip: EmbeddingZip, tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(embedding_zip(20))
    with receiver() as told:
        assert main(["submit", str(tmp_path / "train.zip"), "--notify", told.url, "--wait", "--url", stack.url]) == 0
        deadline = time.monotonic() + 20
        while not told.received:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    secret = http.get("/webhook-secret").json()["secret"]
    (received,) = told.received
    event = Webhook(secret).verify(received.body, received.headers)
    assert event["type"] == "job.succeeded"
    assert http.get(event["data"]["url"]).json()["status"] == "succeeded"
    said = stack.home.log("sweeper").read_text()
    assert received.headers["webhook-id"] in said
    assert "s3cret" not in said
