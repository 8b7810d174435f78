"""Every weight of a model: what its curvature takes is bounded, and said before anything runs where it does not fit."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.torch import save

from benchmarks.digit_worlds import smallest
from encoders import ModelSpec, load_model
from tests.service_fixtures import ImageZip, Upload, Work
from worker.analysis import memory

TINY = {"model": {"architecture": "tiny"}, "objective": {"scope": "all", "batch_size": 4}, "fit": {"epochs": 1}}


@pytest.fixture
def dataset(upload: Upload, image_zip: ImageZip, work: Work) -> str:
    made: str = upload(image_zip(8))["id"]
    work()
    return made


def done(client: TestClient, work: Work, **spec: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"validation": {"fraction": 0.25}, **spec})
    assert answer.status_code == 202, answer.text
    work()
    job: dict[str, Any] = client.get(f"/jobs/{answer.json()['id']}").json()
    return job


def test_kronecker_factors_of_every_weight_fit(client: TestClient, work: Work, dataset: str) -> None:
    """The vocabulary has 49,408 rows: a factor of that side would take 19.5 GB, eight draws of it 156."""
    methods = ["ecif", "ekfac_if", "trak"]
    spec = {**TINY, "model": {"architecture": smallest()}, "influence": {"curvature": "ekfac"}, "methods": methods}
    job = done(client, work, task="valuation", dataset=dataset, **spec)
    assert job["status"] == "succeeded", job["error"]
    assert job["summary"]["curvature"]["parameters"] > 49_408 * 12


@pytest.mark.parametrize(
    ("curvature", "methods", "field"),
    [
        ("ekfac", ["ecif"], "influence.curvature"),
        ("projected", ["ecif"], "influence.curvature"),
        ("gauss_newton", ["ecif", "ekfac_if"], "methods"),
        ("gauss_newton", ["pair_loss", "trak"], "methods"),
        ("gauss_newton", ["ecif", "neighbour_influence"], "methods"),
    ],
)
def test_what_cannot_fit_fails_in_plan(
    client: TestClient,
    work: Work,
    dataset: str,
    monkeypatch: pytest.MonkeyPatch,
    curvature: str,
    methods: list[str],
    field: str,
) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda _: 100 * 2**20)
    spec = {**TINY, "influence": {"curvature": curvature}, "methods": methods}
    job = done(client, work, task="misalignment", dataset=dataset, **spec)
    assert (job["status"], job["phase"]) == ("failed", "plan")
    assert (job["error"]["code"], job["error"]["param"]) == ("too_large_for_memory", field)
    named = curvature if field == "influence.curvature" else methods[-1]
    assert job["error"]["message"].startswith(f"{named} of 3,3")
    assert "objective.scope heads" in job["error"]["message"]


def test_checkpoints_of_whole_towers_that_cannot_fit_fail_in_plan(
    client: TestClient, work: Work, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(ModelSpec("tiny"))
    weights = save(model.state_dict_with(model.full().parameters, "all"))
    posted = [client.post("/models", files={"file": weights}, data={"architecture": "tiny"}).json() for _ in range(4)]
    work()
    named = [model["id"] for model in posted]
    spec = {**TINY, "methods": ["tracin"], "model": {"architecture": "tiny", "checkpoints": named}}
    monkeypatch.setattr(memory, "memory_of", lambda _: 100 * 2**20)
    job = done(client, work, task="misalignment", dataset=dataset, **spec)
    assert (job["status"], job["phase"], job["error"]["code"]) == ("failed", "plan", "too_large_for_memory")
    assert job["error"]["param"] == "model.checkpoints"
    assert job["error"]["message"].startswith("tracin over 4 checkpoints of 3,3")
    assert "name fewer, or take objective.scope heads" in job["error"]["message"]
