"""Checkpoints that a user sends: TracIn and the margin over them instead of over points of the fit."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

from benchmarks.digit_worlds import smallest
from encoders import ModelSpec, load_model
from encoders.architectures import TINY_CONFIG
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing, Upload, Work

SPEC: dict[str, Any] = {"task": "misalignment", "methods": ["tracin", "margin"], "objective": {"batch_size": 6}}
SMALL = smallest()  # a pass through every weight of `tiny` takes twenty times as long
SCALES = (2.0, 3.0, 4.5)  # log 1/τ of each checkpoint

Run = Callable[..., dict[str, Any]]
Bring = Callable[..., str]


def weights(seed: int, **config: Any) -> bytes:
    model = load_model(ModelSpec({**TINY_CONFIG, **config}, seed=seed))
    state = model.state_dict_with(model.full().parameters, "all")
    return save({**state, "logit_scale": torch.tensor(SCALES[seed % len(SCALES)])})


@pytest.fixture
def bring(client: TestClient) -> Bring:
    """Post a model drawn from a seed; return its id."""

    def post(seed: int, architecture: Any = "tiny", **config: Any) -> str:
        said = architecture if isinstance(architecture, str) else json.dumps(architecture)
        content = {"file": ("mine.safetensors", weights(seed, **config))}
        answer = client.post("/models", files=content, data={"architecture": said})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return post


@pytest.fixture
def data(upload: Upload, image_zip: ImageZip, work: Work) -> dict[str, Any]:
    made = {"dataset": upload(image_zip(20))["id"], "validation": {"fraction": 0.3}}
    work()
    return made


@pytest.fixture
def run(client: TestClient, work: Work) -> Run:
    def run_job(**spec: Any) -> dict[str, Any]:
        answer = client.post("/jobs", json={**SPEC, **spec})
        assert answer.status_code == 202, answer.text
        work()
        job: dict[str, Any] = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        return job

    return run_job


def columns(client: TestClient, job: dict[str, Any], name: str) -> dict[str, float]:
    page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
    return {row["key"]: row[name] for row in page["items"]}


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
def test_they_are_the_mean_over_jobs_on_each_of_them(
    client: TestClient, bring: Bring, data: dict[str, Any], run: Run, work: Work, scope: str
) -> None:
    """Each a model as it is, by its own features and temperature, the positive role with no curvature."""
    named = [bring(seed, SMALL, **SMALL) for seed in range(3)]
    work()
    objective = {**SPEC["objective"], "scope": scope, "partitions": 2}
    job = run(**data, objective=objective, model={"architecture": SMALL, "checkpoints": named}, fit={"epochs": 1})
    assert job["spec"]["model"] == {"architecture": SMALL, "pretrained": None, "checkpoints": named}
    alone: dict[str, list[dict[str, float]]] = {"tracin": [], "margin": []}
    digests = []
    for model in named:
        other = {"model": {"id": model}, "fit": None, "influence": {"curvature": "identity", "damping": 0}}
        one = run(**data, **other, objective=objective, methods=["ecif", "margin"])
        alone["tracin"].append(columns(client, one, "positive_influence"))
        alone["margin"].append(columns(client, one, "margin"))
        digests.append(one["summary"]["model"]["digest"])
    for name, of_each in alone.items():
        found = columns(client, job, name)
        assert max(found.values()) > min(found.values())
        for key, value in found.items():
            each = [one[key] for one in of_each]
            assert value == pytest.approx(sum(each) / len(each), rel=2e-3, abs=1e-4 * max(map(abs, each)))
    sent = job["summary"]["checkpoints"]
    assert [one["id"] for one in sent] == named
    assert [one["digest"] for one in sent] == digests
    encoded = {"encoded": 20, "reused": 0}
    assert [one["encoding"] for one in sent] == [
        {"images": encoded, "captions": encoded} if scope == "heads" else None for _ in named
    ]


def test_their_features_are_found_again_and_the_dry_run_counts_them(
    client: TestClient, bring: Bring, data: dict[str, Any], run: Run, work: Work
) -> None:
    named = [bring(seed) for seed in range(2)]
    work()
    spec = {**SPEC, **data, "model": {"id": named[1], "checkpoints": named}, "fit": None}

    def asked(**other: Any) -> dict[str, dict[str, Any]]:
        answer = client.post("/jobs", json={**spec, **other}, params={"dry_run": "true"})
        assert answer.status_code == 200, answer.text
        return {one["phase"]: one for one in answer.json()["phases"]}

    assert asked()["encode"]["shards"] == 3
    job = run(**spec)
    had = {one["phase"]: one for one in job["summary"]["phases"]}
    assert {name: one["shards"] for name, one in asked().items()} == {name: one["shards"] for name, one in had.items()}
    assert had["encode"]["pairs"] == 3 * 20
    # The model is one of them, so that its own features are made once.
    assert job["summary"]["encoding"] == {side: {"encoded": 40, "reused": 20} for side in ("images", "captions")}
    alone = {**spec, "model": {"id": named[1]}}
    assert asked(**alone)["encode"]["seconds"] == pytest.approx(had["encode"]["seconds"] / 3, abs=1e-3)
    assert asked(**alone)["baselines"]["seconds"] is None
    again = run(**spec)
    assert again["summary"]["encoding"] == {side: {"encoded": 0, "reused": 60} for side in ("images", "captions")}
    assert columns(client, again, "tracin") == columns(client, job, "tracin")
    resubmitted = client.post("/jobs", json=job["spec"])
    assert resubmitted.status_code == 202, resubmitted.text


def test_a_job_waits_for_their_check_fails_with_it_and_holds_them(
    client: TestClient, bring: Bring, data: dict[str, Any], work: Work, problem_of: ProblemOf
) -> None:
    good = [bring(seed) for seed in range(2)]
    bad = bring(2, embed_dim=16)  # does not fit `tiny`
    spec = {**SPEC, **data, "fit": None}
    waiting = [
        client.post("/jobs", json={**spec, "model": {"architecture": "tiny", "checkpoints": some}}).json()
        for some in (good, [good[0], bad])
    ]
    assert [(job["status"], job["phase"]) for job in waiting] == [("queued", "ingest")] * 2
    for model in (*good, bad):
        problem = problem_of(client.delete(f"/models/{model}"))
        assert (problem["status"], problem["code"]) == (409, "model_in_use")
    work()
    jobs = [client.get(f"/jobs/{job['id']}").json() for job in waiting]
    assert [job["status"] for job in jobs] == ["succeeded", "failed"], jobs
    assert (jobs[1]["error"]["code"], jobs[1]["error"]["param"]) == ("weights_mismatch", "model.checkpoints")
    assert bad in jobs[1]["error"]["message"]
    assert [client.delete(f"/models/{model}").status_code for model in (*good, bad)] == [204] * 3
    assert columns(client, jobs[0], "margin")


def test_one_of_another_architecture_is_refused(
    client: TestClient, bring: Bring, data: dict[str, Any], work: Work, problem_of: ProblemOf
) -> None:
    """At submit where names tell it, else in the plan, before anything is encoded."""
    vision = {**TINY_CONFIG["vision_cfg"], "layers": 2}
    same, other = bring(0, TINY_CONFIG), bring(1, {**TINY_CONFIG, "vision_cfg": vision}, vision_cfg=vision)
    work()
    spec = {**SPEC, **data, "model": {"architecture": "ViT-B-32", "checkpoints": [bring(2), same]}}
    problem = problem_of(client.post("/jobs", json=spec))
    assert (problem["status"], problem["code"]) == (422, "other_architecture")
    assert problem["errors"][0]["loc"] == ["body", "model", "checkpoints"]
    assert "tiny" in problem["detail"]
    assert "ViT-B-32" in problem["detail"]
    spec["model"] = {"architecture": "tiny", "checkpoints": [same, other]}
    job = client.post("/jobs", json=spec).json()
    work()
    job = client.get(f"/jobs/{job['id']}").json()
    assert (job["status"], job["phase"], job["error"]["code"]) == ("failed", "plan", "other_architecture")
    assert job["error"]["param"] == "model.checkpoints"
    assert job["error"]["message"] == (
        f"checkpoint {other} is of another architecture than the model: vision_cfg.layers differs"
    )


@pytest.mark.parametrize(
    ("model", "methods", "param", "says"),
    [
        ({"architecture": "tiny", "checkpoints": []}, ["tracin"], "model.checkpoints", "at least 2"),
        ({"architecture": "tiny", "checkpoints": ["a"]}, ["tracin"], "model.checkpoints", "at least 2"),
        ({"architecture": "tiny", "checkpoints": list("abcdefghijk")}, ["tracin"], "model.checkpoints", "at most 10"),
        ({"architecture": "tiny", "checkpoints": ["a", "b", "a"]}, ["tracin"], "model", "names a twice"),
        ({"architecture": "tiny", "checkpoints": ["a", "b"]}, ["tracin"], "model.checkpoints", "no model 'a'"),
        ({"architecture": "tiny", "checkpoints": ["a", "b"]}, ["clip_score"], "body", "tracin and margin"),
    ],
)
def test_what_cannot_be_named_is_a_422(
    refusing: Refusing,
    problem_of: ProblemOf,
    model: dict[str, Any],
    methods: list[str],
    param: str,
    says: str,
) -> None:
    spec = {**SPEC, "dataset": refusing.images, "validation": {"fraction": 0.3}, "model": model, "methods": methods}
    problem = problem_of(refusing.client.post("/jobs", json=spec))
    loc = problem["errors"][0]["loc"]
    assert (problem["status"], ".".join(loc[1:]) or loc[0]) == (422, param)
    assert says in problem["detail"]


def test_a_dataset_of_embeddings_runs_no_model(
    client: TestClient, bring: Bring, upload: Upload, embedding_zip: EmbeddingZip, work: Work, problem_of: ProblemOf
) -> None:
    dataset, named = upload(embedding_zip(20))["id"], [bring(seed) for seed in range(2)]
    work()
    spec = {**SPEC, "dataset": dataset, "methods": ["margin"]}
    problem = problem_of(client.post("/jobs", json={**spec, "model": {"id": named[0], "checkpoints": named}}))
    assert (problem["status"], problem["code"]) == (422, "model_not_used")
