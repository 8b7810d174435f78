"""What is fetched counts as what is uploaded does: too much of it is not kept, whoever's key asked for it."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, Work
from worker.attempts.attempt import Workplace, work_once
from worker.ingest import fetch
from worker.outbound import copying

Small = tuple[TestClient, Work, bytes]


@pytest.fixture
def small(
    settings: Settings, database: Database, blobs: Blobs, s3_bucket: Any, embedding_zip: EmbeddingZip
) -> Iterator[Small]:
    """A client of a service that keeps the bytes of one dataset and a half, its worker, and such a dataset."""
    content = embedding_zip(20)
    s3_bucket.put_object(Bucket="pairs", Key="some.zip", Body=content)
    limited = settings.model_copy(
        update={"ecif_max_stored_bytes": len(content) * 3 // 2, "ecif_sources": "s3://pairs/"}
    )
    with database.transaction() as session:
        secret = api_keys.create(session, "default", None)[1]

    def work() -> None:
        while work_once(Workplace(limited, database, blobs)) is not None:
            pass

    with TestClient(create_app(limited), headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client, work, content


def refer(client: TestClient, name: str = "some.zip") -> str:
    answer = client.post("/datasets", json={"uri": f"s3://pairs/{name}"})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def test_the_second_does_not_fit(small: Small, settings: Settings) -> None:
    client, work, _ = small
    first, second = refer(client), refer(client)
    work()
    assert client.get(first).json()["status"] == "ready"
    refused = client.get(second).json()
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_large")
    assert "there is room for" in refused["error"]["message"]
    assert not list((settings.ecif_home / "blobs" / second[1:]).rglob("*"))


def test_what_was_kept_while_it_was_fetched_counts(
    small: Small, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, work, content = small
    real = copying.fetch

    def slow(*args: Any, **how: Any) -> Any:
        found = real(*args, **how)
        assert client.post("/datasets", files={"file": ("x.zip", content)}).status_code == 201
        return found

    monkeypatch.setattr(fetch, "fetch", slow)
    late = refer(client)
    work()
    refused = client.get(late).json()
    assert (refused["status"], refused["error"]["param"]) == ("failed", "uri")
    assert not [path for path in (settings.ecif_home / "blobs" / late[1:]).rglob("*") if path.is_file()]


def test_the_file_of_several_that_does_not_fit_is_named(small: Small, s3_bucket: Any) -> None:
    client, work, content = small
    for name in ("0.zip", "1.zip"):
        s3_bucket.put_object(Bucket="pairs", Key=name, Body=content)
    late = refer(client, "{0..1}.zip")
    work()
    refused = client.get(late).json()
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_large")
    assert refused["error"]["message"].startswith("s3://pairs/1.zip: there is room for")
