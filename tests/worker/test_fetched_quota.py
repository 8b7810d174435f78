"""What is fetched counts as what is uploaded does: too much of it is not kept, whoever's key asked for it."""

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from store import api_keys
from worker.attempts.attempt import Workplace, work_once
from worker.ingest import fetch


@pytest.fixture
def small(settings, database, blobs, s3_bucket, embedding_zip):
    """A client of a service that keeps the bytes of one dataset and a half, its worker, and such a dataset."""
    content = embedding_zip(20)
    s3_bucket.put_object(Bucket="pairs", Key="some.zip", Body=content)
    limited = settings.model_copy(
        update={"ecif_max_stored_bytes": len(content) * 3 // 2, "ecif_sources": "s3://pairs/"}
    )
    with database.transaction() as session:
        secret = api_keys.create(session, "default", None)[1]

    def work():
        while work_once(Workplace(limited, database, blobs)) is not None:
            pass

    with TestClient(create_app(limited), headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client, work, content


def refer(client, name="some.zip"):
    answer = client.post("/datasets", json={"uri": f"s3://pairs/{name}"})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def test_the_second_does_not_fit(small, settings):
    client, work, _ = small
    first, second = refer(client), refer(client)
    work()
    assert client.get(first).json()["status"] == "ready"
    refused = client.get(second).json()
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_large")
    assert "there is room for" in refused["error"]["message"]
    assert not list((settings.ecif_home / "blobs" / second[1:]).rglob("*"))


def test_what_was_kept_while_it_was_fetched_counts(small, settings, monkeypatch):
    client, work, content = small
    real = fetch.fetch

    def slow(*args, **how):
        found = real(*args, **how)
        assert client.post("/datasets", files={"file": ("x.zip", content)}).status_code == 201
        return found

    monkeypatch.setattr(fetch, "fetch", slow)
    late = refer(client)
    work()
    refused = client.get(late).json()
    assert (refused["status"], refused["error"]["param"]) == ("failed", "uri")
    assert not [path for path in (settings.ecif_home / "blobs" / late[1:]).rglob("*") if path.is_file()]


def test_the_file_of_several_that_does_not_fit_is_named(small, s3_bucket):
    client, work, content = small
    for name in ("0.zip", "1.zip"):
        s3_bucket.put_object(Bucket="pairs", Key=name, Body=content)
    late = refer(client, "{0..1}.zip")
    work()
    refused = client.get(late).json()
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_large")
    assert refused["error"]["message"].startswith("s3://pairs/1.zip: there is room for")
