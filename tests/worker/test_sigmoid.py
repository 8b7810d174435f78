"""Models trained with the sigmoid loss: by their architecture, by their checkpoint, and as embeddings."""

from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load, save

from benchmarks.digit_worlds import smallest
from encoders import ModelSpec, load_model
from encoders.architectures import TINY_CONFIG
from store.database import Database
from store.tables import Job
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing, Upload, Work

BIASED = {**TINY_CONFIG, "init_logit_bias": -10.0}
SIGMOID = {"batch_size": 40, "loss": "sigmoid", "temperature": 0.1, "logit_bias": -6.0}
METHODS = ["ecif", "clip_score", "pair_loss", "leave_one_out", "contrast_loss", "margin", "tracin", "trak"]
METHODS += ["ekfac_if", "lemon"]


def ended(client: TestClient, work: Work, **spec: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    work()
    job = client.get(f"/jobs/{answer.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    return job


def rows_of(client: TestClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()["items"]
    return rows


@pytest.fixture
def embeddings(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> dict[str, Any]:
    train, clean = upload(embedding_zip(120, wrong=24)), upload(embedding_zip(80, seed=4))
    work()
    return {"dataset": train["id"], "validation": {"dataset": clean["id"]}}


@pytest.fixture
def images(upload: Upload, image_zip: ImageZip, work: Work) -> str:
    dataset = upload(image_zip(10))["id"]
    work()
    return dataset


def test_every_method_of_embeddings(client: TestClient, work: Work, embeddings: dict[str, Any]) -> None:
    job = ended(client, work, task="misalignment", **embeddings, methods=METHODS, objective=SIGMOID)
    assert job["summary"]["loss"] == {"name": "sigmoid", "logit_bias": -6.0}
    rows = rows_of(client, job)
    wrong = np.array([int(row["key"]) < 24 for row in rows])
    for name, sign in {"suspicion": 1, "pair_loss": 1, "leave_one_out": 1, "self_influence": 1}.items():
        score = sign * np.array([row[name] for row in rows])
        assert (score[wrong][:, None] > score[~wrong][None]).mean() > 0.85, name
    for name in METHODS[2:]:
        assert np.isfinite([row[name] for row in rows]).all(), name
    for row in rows:
        assert row["influence"] == pytest.approx(row["positive_influence"] + row["negative_influence"], abs=1e-9)
    # All of them estimate what a pair's own loss does to the same validation loss, each with its own curvature.
    influence = np.array([row["influence"] for row in rows])
    for name in ("tracin", "trak", "ekfac_if"):
        assert np.corrcoef(influence, [row[name] for row in rows])[0, 1] > 0.5, name
    softmax = ended(client, work, task="misalignment", **embeddings, objective={"batch_size": 40, "temperature": 0.1})
    assert softmax["summary"]["loss"] == {"name": "softmax", "logit_bias": None}


def test_a_removal_comes_near_its_refit(client: TestClient, work: Work, embeddings: dict[str, Any]) -> None:
    job = ended(
        client,
        work,
        task="removal",
        **embeddings,
        remove={"keys": ["60"]},
        verify=True,
        objective={**SIGMOID, "temperature": 0.2, "logit_bias": -5.0, "l2": 1.0},
        influence={"curvature": "hessian"},
    )
    removal = job["summary"]["removal"]
    assert removal["verified"]["stationary"]
    assert removal["verified"]["cosine_of_steps"] > 0.95
    change = removal["verified"]["validation_loss"] - removal["validation_loss"]["before"]
    assert removal["validation_loss"]["predicted_change"] == pytest.approx(change, rel=0.2)


@pytest.mark.parametrize("curvature", ["hessian", "ekfac", "projected", "identity"])
def test_every_curvature(client: TestClient, work: Work, embeddings: dict[str, Any], curvature: str) -> None:
    objective = {**SIGMOID, "partitions": 2, "l2": 3.0}
    job = ended(client, work, task="valuation", **embeddings, objective=objective, influence={"curvature": curvature})
    assert np.isfinite([row["self_influence"] for row in rows_of(client, job)]).all()


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
def test_a_model_with_a_bias_takes_its_own_loss(
    client: TestClient, work: Work, images: str, database: Database, scope: str
) -> None:
    """Edited, its checkpoint comes back as a model that was trained with the same loss."""
    job = ended(
        client,
        work,
        task="removal",
        dataset=images,
        model={"architecture": {**BIASED, **smallest()} if scope == "all" else BIASED},
        objective={"batch_size": 5, "scope": scope, "train_temperature": True},
        fit={"epochs": 2},
        remove={"keys": ["images/3.png"]},
    )
    assert (job["spec"]["objective"]["loss"], job["spec"]["objective"]["logit_bias"]) == ("sigmoid", None)
    assert job["summary"]["loss"] == {"name": "sigmoid", "logit_bias": -10.0}
    with database.transaction() as session:
        (kept,) = session.query(Job).all()
        assert kept.spec_version == 8
    checkpoint = client.get(f"/jobs/{job['id']}/checkpoint").content
    weights = load(checkpoint)
    assert weights["logit_bias"].shape == ()
    assert float(weights["logit_bias"]) != -10.0
    posted = client.post("/models", files={"file": ("edited.safetensors", checkpoint)}).json()
    work()
    assert client.get(f"/models/{posted['id']}").json()["status"] == "ready"
    again = ended(
        client,
        work,
        task="misalignment",
        dataset=images,
        model={"id": posted["id"]},
        fit=None,
        methods=["clip_score", "pair_loss", "lemon", "margin"],
        objective={"batch_size": 5},
    )
    assert again["summary"]["loss"] == {"name": "sigmoid", "logit_bias": float(weights["logit_bias"])}
    assert all(row["pair_loss"] > 0 for row in rows_of(client, again))


def test_a_checkpoint_says_it_where_its_architecture_does_not(client: TestClient, work: Work, images: str) -> None:
    model = load_model(ModelSpec("tiny", seed=5))
    weights = {**model.state_dict_with({}, "all"), "logit_bias": torch.tensor(-8.0)}
    posted = client.post("/models", files={"file": ("m.safetensors", save(weights))}, data={"architecture": "tiny"})
    of = {"task": "misalignment", "dataset": images, "model": {"id": posted.json()["id"]}, "fit": None}
    spec = {**of, "methods": ["pair_loss"], "objective": {"batch_size": 10}}
    job = ended(client, work, **spec)
    assert job["spec"]["objective"]["loss"] is None
    assert job["summary"]["loss"] == {"name": "sigmoid", "logit_bias": -8.0}
    other = ended(client, work, **spec | {"objective": {"batch_size": 10, "loss": "softmax"}})
    assert other["summary"]["loss"]["name"] == "softmax"
    assert rows_of(client, other)[0]["pair_loss"] != rows_of(client, job)[0]["pair_loss"]


@pytest.mark.parametrize(
    ("objective", "param", "says"),
    [
        ({"loss": "sigmoid"}, "objective.logit_bias", "bias"),
        ({"logit_bias": -10.0}, "objective.logit_bias", "sigmoid"),
        ({"temperature": 0.005}, "objective.temperature", "sigmoid"),
        ({"loss": "softmax", "temperature": 0.005}, "objective.temperature", "sigmoid"),
        ({"loss": "hinge"}, "objective.loss", "softmax"),
        ({"loss": "sigmoid", "logit_bias": 2000}, "objective.logit_bias", "1000"),
    ],
)
@pytest.mark.parametrize("kind", ["embeddings", "images"])
def test_what_does_not_fit_is_a_422(
    refusing: Refusing,
    problem_of: ProblemOf,
    objective: dict[str, Any],
    param: str,
    says: str,
    kind: str,
) -> None:
    images = {"dataset": refusing.images, "model": {"architecture": "tiny"}}
    embeddings = {"dataset": refusing.embeddings, "validation": {"dataset": refusing.clean}}
    spec = {"task": "misalignment", **(images if kind == "images" else embeddings), "objective": objective}
    problem = problem_of(refusing.client.post("/jobs", json=spec))
    assert problem["status"] == 422
    if "errors" in problem:
        (error,) = problem["errors"]
        named, message = ".".join(error["loc"][1:]), error["msg"]
    else:
        named, message = problem["param"], problem["detail"]
    assert named == param
    assert says in message


def test_a_checkpoint_without_a_bias_fails_and_says_why(client: TestClient, work: Work, images: str) -> None:
    model = load_model(ModelSpec("tiny", seed=5))
    content = save(model.state_dict_with({}, "all"))
    posted = client.post("/models", files={"file": ("m.safetensors", content)}, data={"architecture": "tiny"}).json()
    work()
    spec = {"task": "misalignment", "dataset": images, "model": {"id": posted["id"]}, "objective": {"loss": "sigmoid"}}
    job = client.post("/jobs", json=spec).json()
    work()
    error = client.get(f"/jobs/{job['id']}").json()["error"]
    assert (error["code"], error["param"]) == ("missing_field", "objective.logit_bias")


def test_a_published_siglip_may_be_named(client: TestClient, images: str) -> None:
    model = {"architecture": "ViT-B-16-SigLIP", "pretrained": "webli"}
    answer = client.post("/jobs", json={"task": "misalignment", "dataset": images, "model": model})
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["objective"]["loss"] == "sigmoid"


def test_checkpoints_have_biases_of_their_own_and_one_loss(client: TestClient, work: Work, images: str) -> None:
    def post(seed: int, **logits: float) -> str:
        state = load_model(ModelSpec("tiny", seed=seed)).state_dict_with({}, "all")
        content = save({**state, **{name: torch.tensor(number) for name, number in logits.items()}})
        posted = client.post("/models", files={"file": ("m.safetensors", content)}, data={"architecture": "tiny"})
        return str(posted.json()["id"])

    ids = [post(1, logit_bias=-10.0), post(2, logit_bias=-4.0, logit_scale=3.0)]
    spec = {"task": "misalignment", "dataset": images, "validation": {"fraction": 0.3}, "fit": None}
    spec |= {"objective": {"batch_size": 4}}
    job = ended(client, work, **spec, model={"id": ids[0], "checkpoints": ids}, methods=["tracin"])
    plain = {"influence": {"curvature": "identity", "damping": 0}, "methods": ["ecif"]}
    alone = [rows_of(client, ended(client, work, **spec, **plain, model={"id": id_})) for id_ in ids]
    # A pair's own loss is its own cell and half of the others of its row and column.
    each = [{row["key"]: row["positive_influence"] + 0.5 * row["negative_influence"] for row in rows} for rows in alone]
    for row in rows_of(client, job):
        assert row["tracin"] == pytest.approx((each[0][row["key"]] + each[1][row["key"]]) / 2, rel=2e-3, abs=1e-6)
    mixed = {"id": ids[0], "checkpoints": [ids[0], post(3)]}
    other = client.post("/jobs", json={**spec, "model": mixed, "methods": ["tracin"]}).json()
    work()
    error = client.get(f"/jobs/{other['id']}").json()["error"]
    assert (error["code"], error["param"]) == ("other_loss", "model.checkpoints")
