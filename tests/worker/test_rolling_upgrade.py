"""Two releases at once: the API and the schema are new already, and some workers are still of the release before.

The old worker is this one with what is new taken away; the new release, what this one does not know added.
"""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from store import shards
from store.blobs import Blobs
from store.database import Database
from store.phases import PHASE_VERSIONS
from store.settings import Settings
from store.specification import version_of
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.attempts.attempt import Workplace, work_once


def test_a_worker_that_lacks_a_phase_leaves_it_to_a_newer_one(
    client: TestClient,
    job: str,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    while client.get(f"/jobs/{job}").json()["phase"] != "rank":
        assert work_once(Workplace(settings, database, blobs)) is not None
    old = {phase: version for phase, version in PHASE_VERSIONS.items() if phase != "rank"}
    with monkeypatch.context() as patched:
        patched.setattr(shards, "PHASE_VERSIONS", old)
        work()
    stopped = client.get(f"/jobs/{job}").json()
    assert (stopped["status"], stopped["phase"], stopped["error"]) == ("running", "rank", None)
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


def test_a_worker_that_lacks_fields_of_a_specification_leaves_the_job_alone(
    client: TestClient, job: str, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = client.get(f"/jobs/{job}").json()["spec"]
    assert {"deadline", "ttl"}.isdisjoint(spec)  # unused, they are nothing that a worker would have to know
    spec["methods"] = ["margin"]
    later = client.post("/jobs", json=spec).json()["id"]
    with monkeypatch.context() as patched:
        patched.setattr(shards, "SPECIFICATION_VERSION", version_of(spec | {"flag": {}}) - 1)
        work()
        assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
        waiting = client.get(f"/jobs/{later}").json()
        assert (waiting["status"], waiting["error"]) == ("queued", None)
    work()
    assert client.get(f"/jobs/{later}").json()["status"] == "succeeded"


def test_a_schema_that_has_grown_changes_nothing_for_this_release(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    work: Work,
) -> None:
    """What the next release's first migration may do: columns and indexes more, and rows that use them."""
    with database.engine.begin() as connection:
        for table in ("shards", "jobs", "datasets", "results"):
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN tomorrow text DEFAULT 'x' NOT NULL"))
        connection.execute(text("CREATE INDEX ON shards (tomorrow, phase)"))
    dataset = upload(embedding_zip(20))["id"]
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO shards (dataset_id, tenant, lane, turn, phase, index, payload, state, tomorrow) "
                "VALUES ('ds_newer', 'default', 'ingest', -5, 'transcribe', 0, '{}', 'queued', 'y')"
            )
        )
    while work_once(Workplace(settings, database, blobs)) is not None:
        pass
    spec = {"task": "misalignment", "dataset": dataset, "methods": ["clip_score"], "fit": None}
    job = client.post("/jobs", json=spec).json()["id"]
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    with database.engine.connect() as connection:
        left = connection.execute(text("SELECT state, attempt FROM shards WHERE phase = 'transcribe'")).one()
    assert tuple(left) == ("queued", 0)
