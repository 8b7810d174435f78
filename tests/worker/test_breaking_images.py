"""An upload with an image that breaks the decoder, through the doors of the service."""

import io
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from readers.sandbox import child
from tests.readers.breaking import breaking_program
from tests.service_fixtures import ImageZip, Upload, Work


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(child, "_PROGRAM", breaking_program(tmp_path))


def test_ingest_survives_and_says_which(
    breaking: None, client: TestClient, upload: Upload, image_zip: ImageZip, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO(image_zip(6))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("x/metadata.csv", "file_name,caption\nbad.png,crashes it\n")
        archive.writestr("x/bad.png", b"crash")
    dataset = upload(content.getvalue())
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert (ready["status"], ready["pair_count"], ready["rejected_count"]) == ("ready", 6, 1)
    (rejected,) = client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]
    assert rejected["error"] == "image of bad.png: the decoder broke down over it"
