"""From upload to ranking over HTTP, with nothing replaced; and what happens when processes are killed on the way."""

import json
import os
import signal
import time
from typing import Any

import httpx
import psutil
import pytest
from safetensors.torch import save

from encoders import ModelSpec, load_model
from standalone.stack import Stack
from tests.service_fixtures import EmbeddingZip, ImageZip

pytestmark = pytest.mark.end_to_end

TINY = {
    "task": "misalignment",
    "model": {"architecture": "tiny", "pretrained": None},
    "objective": {"scope": "heads", "batch_size": 8},
    "fit": {"epochs": 3},
}


def ended(http: httpx.Client, job_id: str, seconds: float = 180) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = http.get(f"/jobs/{job_id}").json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"job did not end: {job}")


def scores(http: httpx.Client, job_id: str) -> dict[str, dict[str, Any]]:
    page = http.get(f"/jobs/{job_id}/results", params={"limit": 1000}).json()
    assert page["next_cursor"] is None
    return {row["key"]: {**row, "image_url": None} for row in page["items"]}


def test_images_in_one_call_to_a_ranking(http: httpx.Client, image_zip: ImageZip) -> None:
    files: dict[str, Any] = {
        "dataset": ("train.zip", image_zip(24, broken=(3,))),
        "validation": ("clean.zip", image_zip(10)),
        "spec": (None, json.dumps(TINY), "application/json"),
    }
    answer = http.post("/jobs", files=files)
    assert answer.status_code == 202, answer.text
    job = ended(http, answer.json()["id"])
    assert job["status"] == "succeeded", job["error"]
    assert job["summary"]["counts"]["scored"] == 23
    assert job["summary"]["counts"]["rejected"] == 1
    rows = http.get(f"/jobs/{job['id']}/results").json()["items"]
    assert len(rows) == 23
    picture = http.get(rows[0]["image_url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert {phase["phase"] for phase in job["summary"]["phases"]} >= {"plan", "encode", "fit", "curvature", "score"}


def test_a_killed_worker_process_loses_nothing(stack: Stack, http: httpx.Client, embedding_zip: EmbeddingZip) -> None:
    spec = {"task": "misalignment", "objective": {"batch_size": 16, "l2": 0.003}, "fit": {"epochs": 4000}}
    undisturbed_and_disturbed = []
    for kill in (False, True):
        files: dict[str, Any] = {
            "dataset": ("x.zip", embedding_zip(600, width=24, wrong=60)),
            "spec": (None, json.dumps(spec)),
        }
        job_id = http.post("/jobs", files=files).json()["id"]
        if kill:
            deadline = time.monotonic() + 60
            while http.get(f"/jobs/{job_id}").json()["phase"] != "fit":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.5)
            children = psutil.Process(stack.processes["worker"].pid).children()
            busy = [child.pid for child in children if child.cpu_percent(0.1) > 20]
            assert busy
            for pid in busy:
                os.kill(pid, signal.SIGKILL)
        job = ended(http, job_id)
        assert job["status"] == "succeeded", job["error"]
        undisturbed_and_disturbed.append(scores(http, job_id))
    first, second = undisturbed_and_disturbed
    assert first == second


# Half a second a pass, and many passes: whoever acts once it has begun does so before its end.
LONG_FIT = {"task": "misalignment", "objective": {"batch_size": 16, "l2": 0}, "fit": {"epochs": 10_000}}


def test_a_worker_that_is_told_to_end_hands_back_its_shard(
    stack: Stack, http: httpx.Client, embedding_zip: EmbeddingZip
) -> None:
    files: dict[str, Any] = {"dataset": ("x.zip", embedding_zip(4000, width=64)), "spec": (None, json.dumps(LONG_FIT))}
    job_id = http.post("/jobs", files=files).json()["id"]
    worker = stack.processes["worker"]
    first = worker.pid

    def until(word: str) -> None:
        deadline = time.monotonic() + 120
        while f"{job_id} fit-0{word}" not in worker.command.log.read_text():
            assert time.monotonic() < deadline, word
            time.sleep(0.05)

    until(" attempt 1: begins")
    os.kill(first, signal.SIGTERM)
    until(": handed back")
    until(" attempt 2: begins")
    assert worker.pid != first
    assert http.post(f"/jobs/{job_id}/cancel").status_code == 200
    assert ended(http, job_id)["status"] == "cancelled"
    assert f"{job_id} fit-0: its worker vanished" not in worker.command.log.read_text()


def test_an_api_that_is_killed_comes_back_with_everything(
    stack: Stack, http: httpx.Client, embedding_zip: EmbeddingZip
) -> None:
    dataset = http.post("/datasets", files={"file": ("x.zip", embedding_zip(20))}).json()
    os.kill(stack.processes["api"].pid, signal.SIGKILL)
    stack.wait_until_up()
    assert httpx.get(f"{stack.url}/datasets/{dataset['id']}").status_code == 200


def test_cancelling_a_running_job_ends_it_soon(http: httpx.Client, embedding_zip: EmbeddingZip) -> None:
    files: dict[str, Any] = {"dataset": ("x.zip", embedding_zip(4000, width=64)), "spec": (None, json.dumps(LONG_FIT))}
    job_id = http.post("/jobs", files=files).json()["id"]
    deadline = time.monotonic() + 60
    while http.get(f"/jobs/{job_id}").json()["phase"] != "fit":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert http.post(f"/jobs/{job_id}/cancel").json()["status"] in ("cancelling", "cancelled")
    assert ended(http, job_id, seconds=10)["status"] == "cancelled"


def test_ready_says_what_it_depends_on(stack: Stack, http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready", "postgres": "ok", "redis": "ok"}
    document = http.get("/openapi.json").json()
    assert {"/jobs", "/datasets", "/jobs/{job_id}/results"} <= set(document["paths"])
    assert {"JobSpec", "JobSettings", "Problem"} <= set(document["components"]["schemas"])


def test_a_job_over_checkpoints_that_were_sent(http: httpx.Client, image_zip: ImageZip) -> None:
    sent = []
    for seed in range(2):
        model = load_model(ModelSpec("tiny", seed=seed))
        content = save(model.state_dict_with(model.full().parameters, "all"))
        answer = http.post("/models", files={"file": ("mine.safetensors", content)}, data={"architecture": "tiny"})
        assert answer.status_code == 201, answer.text
        sent.append(answer.json()["id"])
    spec = {**TINY, "model": {"id": sent[1], "checkpoints": sent}, "methods": ["margin", "tracin"], "fit": None}
    files: dict[str, Any] = {
        "dataset": ("train.zip", image_zip(24)),
        "spec": (None, json.dumps({**spec, "validation": {"fraction": 0.25}})),
    }
    answer = http.post("/jobs", files=files)
    assert answer.status_code == 202, answer.text
    job = ended(http, answer.json()["id"])
    assert job["status"] == "succeeded", job["error"]
    assert [one["id"] for one in job["summary"]["checkpoints"]] == sent
    rows = scores(http, job["id"]).values()
    assert len(rows) == 18
    for name in ("margin", "tracin"):
        assert len({row[name] for row in rows}) == 18
    assert [http.delete(f"/models/{model}").status_code for model in sent] == [204, 204]
