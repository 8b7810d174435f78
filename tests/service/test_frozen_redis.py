"""A Redis that is there and does not answer holds up nobody."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis
from fastapi.testclient import TestClient

from service.app import create_app
from standalone import servers
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip


@pytest.fixture
def frozen_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.redis(tmp_path_factory.mktemp("redis")) as url:
        with redis.Redis.from_url(url) as connection:
            pid = connection.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        yield url
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_redis_does_not_hold_a_post(
    settings: Settings, frozen_redis: str, embedding_zip: EmbeddingZip
) -> None:
    with TestClient(create_app(settings.model_copy(update={"redis_url": frozen_redis}))) as client:
        began = time.monotonic()
        dataset = client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))})
        job = client.post("/jobs", json={"task": "misalignment", "dataset": dataset.json()["id"]})
        assert (dataset.status_code, job.status_code) == (201, 202)
        assert time.monotonic() - began < 3
        assert client.get("/readyz").json() == {"status": "degraded", "postgres": "ok", "redis": "unreachable"}
