"""Task `removal`: pairs leave a fitted model without retraining, and a real refit says how well that went."""

from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load

from benchmarks.digit_worlds import smallest
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing, Upload, Work


def submit(client: TestClient, work: Work, **spec: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"task": "removal", **spec})
    assert answer.status_code == 202, answer.text
    work()
    return client.get(f"/jobs/{answer.json()['id']}").json()


@pytest.fixture
def data(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> dict[str, Any]:
    train, clean = upload(embedding_zip(120, wrong=24)), upload(embedding_zip(40, seed=4))
    work()
    return {"dataset": train["id"], "validation": {"dataset": clean["id"]}}


def test_the_edit_comes_near_the_refit(client: TestClient, work: Work, data: dict[str, Any]) -> None:
    """One pair of 120, so that a Newton step is a small step; a fifth of the data at once is another matter."""
    job = submit(
        client,
        work,
        **data,
        remove={"keys": ["60"]},
        verify=True,
        objective={"batch_size": 32, "temperature": 0.2, "l2": 1.0},
        influence={"curvature": "hessian"},
    )
    assert job["status"] == "succeeded", job["error"]
    removal = job["summary"]["removal"]
    assert removal["removed"] == 1
    assert job["summary"]["fit"]["stationary"]
    verified, loss = removal["verified"], removal["validation_loss"]
    assert verified["stationary"]
    assert verified["cosine_of_steps"] > 0.98
    change = verified["validation_loss"] - loss["before"]
    assert loss["predicted_change"] == pytest.approx(change, rel=0.2)
    assert loss["edited"] - loss["before"] == pytest.approx(change, rel=0.2)


def test_the_checkpoint_is_the_fitted_heads_moved_by_the_step(
    client: TestClient, work: Work, data: dict[str, Any]
) -> None:
    job = submit(client, work, **data, remove={"keys": ["7"]})
    answer = client.get(f"/jobs/{job['id']}/checkpoint")
    assert answer.status_code == 200
    weights = load(answer.content)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "image.weight": (8, 8),
        "text.weight": (8, 8),
    }
    rows = client.get(f"/jobs/{job['id']}/results").json()
    assert rows["total"] == 120
    assert job["summary"]["ranked_by"].startswith("influence")


@pytest.mark.parametrize("scope", ["heads", "lora"])
def test_open_clip_loads_the_checkpoint_of_a_model(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work, scope: str
) -> None:
    from encoders import ModelSpec, load_model

    dataset = upload(image_zip(10))
    work()
    job = submit(
        client,
        work,
        dataset=dataset["id"],
        remove={"keys": ["images/3.png"]},
        model={"architecture": "tiny", "pretrained": None},
        objective={"batch_size": 5, "scope": scope},
        fit={"epochs": 3},
    )
    assert job["status"] == "succeeded", job["error"]
    weights = load(client.get(f"/jobs/{job['id']}/checkpoint").content)
    model = load_model(ModelSpec("tiny", None, 0))
    fresh = model.state_dict_with(model.heads().parameters, "heads")
    assert weights.keys() == fresh.keys()
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in fresh.items()}
    changed = {name for name in weights if not torch.equal(weights[name], fresh[name])}
    heads = {"visual.proj", "text_projection"}
    blocks = {"in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight"}
    if scope == "heads":
        assert changed == heads
    else:  # the adapters are merged into what they adapt, and nothing else is touched
        assert changed == heads | {name for name in fresh if name.endswith(tuple(blocks))}


def test_a_trained_temperature_is_in_the_checkpoint(client: TestClient, work: Work, data: dict[str, Any]) -> None:
    job = submit(
        client, work, **data, remove={"keys": ["7"]}, objective={"temperature": 0.1, "train_temperature": True}
    )
    assert job["status"] == "succeeded", job["error"]
    reached = job["summary"]["fit"]["temperature"]
    assert reached != pytest.approx(0.1, rel=1e-3)
    weights = load(client.get(f"/jobs/{job['id']}/checkpoint").content)
    assert set(weights) == {"image.weight", "text.weight", "logit_scale"}
    assert float(weights["logit_scale"].neg().exp()) == pytest.approx(reached, rel=0.1)  # moved by the edit


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
def test_a_model_s_temperature_can_be_trained_in_every_scope(
    client: TestClient, work: Work, upload: Upload, image_zip: ImageZip, scope: str
) -> None:
    dataset = upload(image_zip(8))
    work()
    job = submit(
        client,
        work,
        dataset=dataset["id"],
        remove={"keys": ["images/3.png"]},
        model={"architecture": smallest() if scope == "all" else "tiny"},
        objective={"batch_size": 4, "scope": scope, "train_temperature": True},
        fit={"epochs": 2},
        methods=["clip_score"],
    )
    assert job["status"] == "succeeded", job["error"]
    weights = load(client.get(f"/jobs/{job['id']}/checkpoint").content)
    assert weights["logit_scale"].shape == ()
    assert float(weights["logit_scale"].neg().exp()) != pytest.approx(0.07, rel=1e-6)


def test_what_an_earlier_job_flagged_can_be_removed(client: TestClient, work: Work, data: dict[str, Any]) -> None:
    earlier = client.post("/jobs", json={"task": "misalignment", **data, "flag": {"false_discovery_rate": 0.3}}).json()
    work()
    flagged = client.get(f"/jobs/{earlier['id']}").json()["summary"]["counts"]["flagged"]
    assert flagged > 0
    job = submit(client, work, **data, remove={"job": earlier["id"], "flagged": True})
    assert job["status"] == "succeeded", job["error"]
    assert job["summary"]["removal"]["removed"] == flagged


@pytest.mark.parametrize(
    ("remove", "code", "said"),
    [
        ({"keys": ["0", "nobody"]}, "unknown_key", "nobody"),
        ({"keys": [f"nobody {n}" for n in range(70_000)]}, "unknown_key", "and 69995 more"),  # more than parameters
        ({"keys": ["n" * 100_000]}, "unknown_key", "nnn…'"),
        ({"keys": [str(i) for i in range(120)]}, "everything_removed", "no pair"),
    ],
)
def test_a_removal_that_cannot_be_fails_and_says_why(
    client: TestClient, work: Work, data: dict[str, Any], remove: dict[str, Any], code: str, said: str
) -> None:
    job = submit(client, work, **data, remove=remove)
    assert job["status"] == "failed"
    assert job["error"]["code"] == code
    assert said in job["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"remove": None},
        {"remove": {"keys": []}},
        {"remove": {"job": "job_x", "flagged": True}},
        {"remove": {"job": "job_x", "flagged": False}},
        {"task": "misalignment", "remove": {"keys": ["1"]}},
    ],
)
def test_a_removal_that_is_not_well_asked_is_a_422(
    refusing: Refusing, problem_of: ProblemOf, change: dict[str, Any]
) -> None:
    data = {"dataset": refusing.embeddings, "validation": {"dataset": refusing.clean}}
    body = {"task": "removal", **data, **change}
    assert problem_of(refusing.client.post("/jobs", json=body))["status"] == 422


def test_other_tasks_leave_no_checkpoint(
    client: TestClient, work: Work, data: dict[str, Any], problem_of: ProblemOf
) -> None:
    job = client.post("/jobs", json={"task": "misalignment", **data}).json()
    work()
    assert problem_of(client.get(f"/jobs/{job['id']}/checkpoint"))["status"] == 404
