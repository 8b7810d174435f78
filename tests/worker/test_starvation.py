"""A heavy tenant beside a light one, through the real claims and the real worker: how long the light one waits."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip
from worker.analysis import load
from worker.attempts.attempt import Workplace, work_once


@pytest.fixture
def of_tenant(settings: Settings, database: Database) -> Callable[[str], TestClient]:
    """A client with a key of the tenant."""

    def make(tenant: str) -> TestClient:
        with database.transaction() as session:
            _, key = api_keys.create(session, tenant, "test")
        return TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"})

    return make


def send(client: TestClient, content: bytes) -> str:
    return client.post("/datasets", files={"file": ("data.zip", content)}).json()["id"]


def test_a_job_of_another_tenant_does_not_wait_for_a_long_queue(
    of_tenant: Callable[[str], TestClient],
    embedding_zip: EmbeddingZip,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "_ROWS_A_SHARD", 1)
    spec = {"task": "misalignment", "fit": None, "methods": ["clip_score"]}
    place = Workplace(settings, database, blobs)
    with of_tenant("heavy") as heavy, of_tenant("light") as light:
        large = heavy.post("/jobs", json={**spec, "dataset": send(heavy, embedding_zip(400))}).json()["id"]
        while heavy.get(f"/jobs/{large}").json()["phase"] != "load":
            work_once(place)
        swarm = [send(heavy, embedding_zip(4, seed=n)) for n in range(50)]
        small = light.post("/jobs", json={**spec, "dataset": send(light, embedding_zip(4))}).json()["id"]
        turns = 0
        while light.get(f"/jobs/{small}").json()["status"] != "succeeded":
            assert work_once(place) is not None
            turns += 1
        # Four of ingest and, with four results, eight of the job; the heavy tenant has as many in between.
        assert turns <= 2 * (4 + 8) + 2
        assert heavy.get(f"/jobs/{large}").json()["status"] == "running"
        assert heavy.get(f"/datasets/{swarm[-1]}").json()["status"] == "ingesting"
