"""Blobs and rows after a restore: what is missing, and what nobody names."""

import pytest
from fastapi.testclient import TestClient

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import ImageZip, Upload, Work
from worker import check_blobs
from worker.check_blobs import check


@pytest.fixture
def done(client: TestClient, upload: Upload, image_zip: ImageZip, work: Work) -> tuple[str, str]:
    """A dataset and a job that encoded it; their ids."""
    dataset = upload(image_zip(6))["id"]
    body = {"task": "misalignment", "dataset": dataset, "methods": ["clip_score"], "fit": None}
    job = client.post("/jobs", json=body | {"model": {"architecture": "tiny"}}).json()["id"]
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    return dataset, job


def test_a_whole_service_agrees_with_itself(
    done: tuple[str, str], database: Database, blobs: Blobs, client: TestClient
) -> None:
    assert check(database, blobs) == ([], {})
    blobs.put("pending/datasets/ds_on_its_way", b"")
    blobs.put("datasets/ds_on_its_way/upload", b"x")
    answer = client.post("/uploads", headers={"upload-length": "3", "tus-resumable": "1.0.0"})
    assert answer.status_code == 201, answer.text
    assert check(database, blobs) == ([], {})
    client.delete(f"/jobs/{done[1]}")
    client.delete(f"/datasets/{done[0]}")
    assert check(database, blobs) == ([], {})


def test_blobs_that_are_gone_are_named(done: tuple[str, str], database: Database, blobs: Blobs) -> None:
    names = sorted(name for name, _ in blobs.list(f"datasets/{done[0]}"))
    assert len(names) == 3  # the upload, its one part, what was encoded of it
    for name in names:
        blobs.delete(name)
    assert check(database, blobs) == (names, {})


def test_blobs_that_no_row_names_are_counted(done: tuple[str, str], database: Database, blobs: Blobs) -> None:
    for name in ("datasets/ds_gone/upload", "datasets/ds_gone/ingest-0.1/000000", "jobs/job_gone/x"):
        blobs.put(name, b"x")
    assert check(database, blobs) == ([], {"datasets/ds_gone": 2, "jobs/job_gone": 1})


def test_the_command_says_so_and_ends_with_1(
    done: tuple[str, str],
    settings: Settings,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check_blobs, "get_settings", lambda: settings)
    assert check_blobs.main() == 0
    blobs.delete(f"datasets/{done[0]}/upload")
    blobs.put("models/model_gone/checkpoint", b"x")
    assert check_blobs.main() == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"missing: datasets/{done[0]}/upload",
        "no row: models/model_gone (1 blobs)",
        "1 blobs are missing, 1 owners of blobs have no row",
    ]
