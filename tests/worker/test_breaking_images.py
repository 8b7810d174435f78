"""An upload with an image that breaks the decoder, through the doors of the service."""

import io
import zipfile

import pytest

from readers.sandbox import child
from tests.readers.breaking import breaking_program


@pytest.fixture
def breaking(monkeypatch, tmp_path):
    monkeypatch.setattr(child, "_PROGRAM", breaking_program(tmp_path))


def test_ingest_survives_and_says_which(breaking, client, upload, image_zip, work, monkeypatch):
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
