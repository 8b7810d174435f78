"""Listings stay small and cheap, whatever their rows hold; what is read by its id is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import event

from tests.service_fixtures import EmbeddingZip, ImageZip, Upload, Work, app_of

JOBS = 40
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"layers": 1, "width": 64, "patch_size": 8, "image_size": 32, "act_kwargs": {"note": "x" * 900_000}},
    "text_cfg": {"layers": 1, "width": 64, "heads": 1},
}


@contextmanager
def statements(client: TestClient) -> Iterator[list[str]]:
    """The statements that the service sends while the block lasts."""
    engine, sent = app_of(client).state.service.database.engine, []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def submitted(client: TestClient, **spec: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"task": "misalignment", "fit": None, **spec})
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_page_of_jobs_with_models_of_their_own_is_light(
    client: TestClient, upload: Upload, image_zip: ImageZip
) -> None:
    dataset = upload(image_zip(2))["id"]
    jobs = [submitted(client, dataset=dataset, model={"architecture": CONFIG}) for _ in range(JOBS)]
    with statements(client) as sent:
        answer = client.get("/jobs")
    assert len(answer.content) < 1500 * JOBS
    whole = jobs[-1]
    (listed,) = [job for job in answer.json()["items"] if job["id"] == whole["id"]]
    architecture = listed["spec"]["model"].pop("architecture")
    assert architecture == {"abridged": True, "bytes": architecture["bytes"]}
    assert architecture["bytes"] > 900_000
    assert whole["spec"]["model"].pop("architecture") == CONFIG
    assert listed == whole
    assert client.get(f"/jobs/{whole['id']}").json()["spec"]["model"]["architecture"] == CONFIG
    # Whether anybody's key is asked for, the page, its progress, how many there are.
    assert len(sent) == 4, sent


def test_the_progress_of_a_page_is_that_of_each_of_its_jobs(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work
) -> None:
    done = submitted(client, dataset=upload(embedding_zip(10))["id"])
    work()
    waiting = [submitted(client, dataset=upload(embedding_zip(10 + n))["id"]) for n in range(3)]
    started = submitted(client, dataset=done["spec"]["dataset"])
    listed = client.get("/jobs").json()["items"]
    assert [job["id"] for job in listed] == [job["id"] for job in (started, *reversed(waiting), done)]
    for job in listed:
        assert job["progress"] == client.get(f"/jobs/{job['id']}").json()["progress"]
    assert [job["progress"] for job in listed[1:4]] == [{"done": 0, "total": 0, "unit": "pairs"}] * 3
    assert listed[-1]["progress"] == {"done": 10, "total": 10, "unit": "pairs"}


def test_long_lists_of_a_specification_are_abridged_and_short_ones_are_not(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work
) -> None:
    dataset = upload(embedding_zip(4))["id"]
    long = {"keys": [f"a key of pair {n}" for n in range(100)]}
    for keys in (["1"], long["keys"]):
        submitted(client, task="removal", dataset=dataset, remove={"keys": keys})
    first, second = (job["spec"]["remove"]["keys"] for job in client.get("/jobs").json()["items"])
    assert first["abridged"]
    assert second == ["1"]


def test_a_listing_of_jobs_leaves_the_distributions_out(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work
) -> None:
    dataset = upload(embedding_zip(10))
    job = submitted(client, dataset=dataset["id"])
    work()
    (listed,) = client.get("/jobs").json()["items"]
    whole = client.get(f"/jobs/{job['id']}").json()
    assert "scores" in whole["summary"]
    assert listed["summary"] == {name: value for name, value in whole["summary"].items() if name != "scores"}


def test_a_page_of_models_abridges_their_configurations(client: TestClient) -> None:
    for architecture in (CONFIG, "ViT-B-32"):
        answer = client.post("/models", json={"uri": "https://example.org/m.safetensors", "architecture": architecture})
        assert answer.status_code == 201, answer.text
    short, long = client.get("/models").json()["items"]
    assert short["architecture"] == "ViT-B-32"
    assert long["architecture"]["abridged"]
    assert client.get(f"/models/{long['id']}").json()["architecture"] == CONFIG
