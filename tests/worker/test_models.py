"""Models that users bring: posted, checked by a worker, named by jobs, deleted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save
from torch import Tensor

from encoders import ModelRefused, ModelSpec, load_model
from encoders.architectures import TINY_CONFIG
from service.app import create_app
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.errors import InvalidError
from store.settings import Settings
from store.specification import JobSpec
from store.tables import Model, Shard
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing, Upload, Work, app_of
from worker.analysis.models import job_embedder
from worker.sweeper import sweep

Run = Callable[..., dict[str, Any]]

SPEC = {"task": "misalignment", "fit": None, "methods": ["clip_score"], "objective": {"batch_size": 4}}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    model = load_model(ModelSpec("tiny", seed=5))
    return model.state_dict_with(model.full().parameters, "all")


@pytest.fixture
def bring(client: TestClient, work: Work) -> Run:
    """Post a checkpoint; return the model once it is checked."""

    def post(content: bytes, **fields: Any) -> dict[str, Any]:
        answer = client.post("/models", files={"file": ("mine.safetensors", content)}, data=fields)
        assert answer.status_code == 201, answer.text
        assert answer.json()["status"] == "checking"
        work()
        return client.get(answer.headers["location"]).json()

    return post


@pytest.fixture
def run(client: TestClient, work: Work) -> Run:
    def run_job(**spec: Any) -> dict[str, Any]:
        answer = client.post("/jobs", json={**SPEC, **spec})
        assert answer.status_code == 202, answer.text
        work()
        job = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        return job

    return run_job


def scores(client: TestClient, job: dict[str, Any]) -> dict[str, float]:
    page = client.get(f"/jobs/{job['id']}/results").json()
    return {row["key"]: row["clip_score"] for row in page["items"]}


def test_a_job_on_a_model_of_ones_own_is_as_on_the_same_weights_by_name(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    bring: Run,
    run: Run,
    weights: dict[str, Tensor],
    work: Work,
) -> None:
    model = bring(save(weights), architecture="tiny", name="ours")
    assert (model["status"], model["name"], model["error"]) == ("ready", "ours", None)
    assert model["digest"].startswith("sha256:")
    assert model["size_bytes"] == len(save(weights))
    dataset = upload(image_zip(8))["id"]
    job = run(dataset=dataset, model={"id": model["id"]})
    assert job["spec"]["model"] == {"id": model["id"]}
    assert not any("random" in warning for warning in job["summary"]["warnings"])
    named = run(dataset=dataset, model={"architecture": "tiny"}, objective={"batch_size": 4, "seed": 5})
    assert scores(client, job) == scores(client, named)
    assert job["summary"]["model"] == named["summary"]["model"]
    again = client.post("/jobs", json=job["spec"])
    assert again.status_code == 202, again.text


def test_the_checkpoint_of_a_removal_comes_back_as_a_model(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    bring: Run,
    run: Run,
    work: Work,
) -> None:
    """Uploaded, and named by its job: the file says its own architecture and preprocessing."""
    dataset = upload(image_zip(10))["id"]
    config = {"model_cfg": TINY_CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "resize_mode": "squash"}}
    spec = {"dataset": dataset, "model": {"architecture": config}, "objective": {"batch_size": 5}}
    plain = {"influence": {"curvature": "identity"}}
    removal = run(**spec, **plain, task="removal", fit={"epochs": 3}, remove={"keys": ["images/3.png"]})
    checkpoint = client.get(f"/jobs/{removal['id']}/checkpoint").content
    uploaded = bring(checkpoint)
    assert uploaded["status"] == "ready", uploaded["error"]
    assert uploaded["architecture"]["model_cfg"] == TINY_CONFIG
    assert config["preprocess_cfg"].items() <= uploaded["architecture"]["preprocess_cfg"].items()
    named = client.post("/models", json={"job": removal["id"], "name": "edited"}).json()
    assert (named["digest"], named["architecture"]) == (None, None)
    work()
    named = client.get(f"/models/{named['id']}").json()
    assert (named["status"], named["name"], named["source"]) == ("ready", "edited", removal["id"])
    assert (named["digest"], named["architecture"]) == (uploaded["digest"], uploaded["architecture"])
    first, second = (run(dataset=dataset, model={"id": model["id"]}) for model in (uploaded, named))
    assert scores(client, first) == scores(client, second)
    as_it_was = run(**{**spec, "objective": {"batch_size": 4}})
    assert first["summary"]["model"]["digest"] != as_it_was["summary"]["model"]["digest"]


def test_a_job_waits_for_the_check_and_fails_with_it(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    work: Work,
    weights: dict[str, Tensor],
    problem_of: ProblemOf,
) -> None:
    dataset = upload(image_zip(4))["id"]
    work()
    good = {name: weight for name, weight in weights.items() if name != "text_projection"}
    bad = {**weights, "logit_scale": torch.tensor(float("nan"))}
    ids = [
        client.post("/models", files={"file": save(content)}, data={"architecture": "tiny"}).json()["id"]
        for content in (weights, good, bad)
    ]
    made = [client.post("/jobs", json={**SPEC, "dataset": dataset, "model": {"id": id_}}).json() for id_ in ids]
    assert [job["status"] for job in made] == ["queued"] * 3
    work()
    jobs = [client.get(f"/jobs/{job['id']}").json() for job in made]
    assert [job["status"] for job in jobs] == ["succeeded", "failed", "failed"]
    for job, says in zip(jobs[1:], ("text_projection", "not finite"), strict=True):
        assert (job["error"]["code"], job["error"]["param"]) == ("weights_mismatch", "model.id")
        assert says in job["error"]["message"]
    failed = client.get(f"/models/{ids[1]}").json()
    assert (failed["status"], failed["error"]["param"]) == ("failed", "file")
    problem = problem_of(client.post("/jobs", json={**SPEC, "dataset": dataset, "model": {"id": ids[1]}}))
    assert (problem["status"], problem["code"]) == (422, "model_failed")


def test_a_model_in_use_is_not_deleted_and_a_deleted_one_leaves_nothing(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    bring: Run,
    weights: dict[str, Tensor],
    work: Work,
    database: Database,
    blobs: Blobs,
    settings: Settings,
    problem_of: ProblemOf,
) -> None:
    model = bring(save(weights), architecture="tiny")["id"]
    job = client.post("/jobs", json={**SPEC, "dataset": upload(image_zip(4))["id"], "model": {"id": model}}).json()
    problem = problem_of(client.delete(f"/models/{model}"))
    assert (problem["status"], problem["code"]) == (409, "model_in_use")
    work()
    assert client.delete(f"/models/{model}").status_code == 204
    assert problem_of(client.get(f"/models/{model}"))["status"] == 404
    assert client.get("/models").json()["total"] == 0
    assert scores(client, job)
    sweep(database, blobs, type("Silent", (), {"ring": lambda *_: None})(), settings)
    with database.transaction() as session:
        assert session.query(Model).count() == 0
        assert session.query(Shard).filter(Shard.model_id.is_not(None)).count() == 0
    assert not list((settings.ecif_home / "blobs").rglob("models/*/*"))


def test_a_model_by_reference(
    settings: Settings, database: Database, blobs: Blobs, weights: dict[str, Tensor], s3_bucket: Any, work: Work
) -> None:
    s3_bucket.put_object(Bucket="pairs", Key="mine.safetensors", Body=save(weights))
    s3_bucket.put_object(Bucket="pairs", Key="noise", Body=b"noise" * 10)
    with TestClient(create_app(settings)) as client:
        body = {"uri": "s3://pairs/mine.safetensors", "architecture": "tiny"}
        ids = [
            client.post("/models", json=asked).json()["id"]
            for asked in (body, {"uri": body["uri"]}, {"uri": "s3://pairs/noise", "architecture": "tiny"})
        ]
        work()
        found, silent, noise = (client.get(f"/models/{id_}").json() for id_ in ids)
    assert (found["status"], found["name"], found["source"]) == ("ready", "mine.safetensors", body["uri"])
    assert found["size_bytes"] == len(save(weights))
    assert (silent["status"], silent["error"]["param"]) == ("failed", "architecture")
    assert (noise["status"], noise["error"]["code"]) == ("failed", "invalid_checkpoint")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "architecture", "architecture"),
        ({"architecture": "ViT-B-33"}, "architecture", "did you mean"),
        ({"architecture": "coca_ViT-B-32"}, "architecture", "captioning"),
        ({"architecture": "hf-hub:somebody/model"}, "architecture", "no architecture"),
        ({"architecture": json.dumps({"embed_dim": 3})}, "architecture.vision_cfg", "required"),
        ({"architecture": "tiny", "name": "x" * 201}, "name", "200"),
    ],
)
def test_what_cannot_be_a_model_is_a_422_and_nothing_is_kept(
    refusing: Refusing,
    weights: dict[str, Tensor],
    problem_of: ProblemOf,
    fields: dict[str, Any],
    param: str,
    says: str,
) -> None:
    client = refusing.client
    problem = problem_of(client.post("/models", files={"file": save(weights)}, data=fields))
    assert (problem["status"], ".".join(problem["errors"][0]["loc"][1:])) == (422, param)
    assert says in problem["detail"]
    assert not list((refusing.home / "blobs").rglob("*.safetensors"))
    assert client.get("/models").json()["total"] == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, ""),
        ({"uri": "https://h/x", "job": "job_x"}, ""),
        ({"uri": "https://h/x", "file": 1}, "file"),
        ({"uri": "/etc/passwd"}, "uri"),
        ({"job": "job_x"}, "job"),
        ({"uri": "https://h/x", "architecture": {"embed_dim": 1e3}}, "architecture.embed_dim"),
    ],
)
def test_a_reference_that_cannot_be_is_a_422(
    refusing: Refusing, problem_of: ProblemOf, body: dict[str, Any], param: str
) -> None:
    problem = problem_of(refusing.client.post("/models", json=body))
    assert (problem["status"], ".".join(problem["errors"][0]["loc"][1:])) == (422, param)


def test_only_removals_of_models_leave_one(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    run: Run,
    problem_of: ProblemOf,
) -> None:
    dataset = upload(embedding_zip(20))["id"]
    other = run(dataset=dataset)
    heads = run(dataset=dataset, task="removal", remove={"keys": ["3"]})
    for job, says in ((other, "no removal"), (heads, "embeddings")):
        assert says in problem_of(client.post("/models", json={"job": job["id"]}))["detail"]


@pytest.mark.parametrize(
    ("model", "param"),
    [
        ({"id": "model_x"}, "model.id"),
        ({"id": "model_x", "architecture": "tiny"}, "model"),
        ({"id": "model_x", "pretrained": "openai"}, "model"),
        ({"pretrained": "openai"}, "model"),
        ({"architecture": {"embed_dim": 8, "vision_cfg": {"colour": "red"}}}, "model.architecture.vision_cfg.colour"),
    ],
)
def test_a_model_that_a_job_cannot_name(
    refusing: Refusing, problem_of: ProblemOf, model: dict[str, Any], param: str
) -> None:
    body = {**SPEC, "dataset": refusing.images, "model": model}
    problem = problem_of(refusing.client.post("/jobs", json=body))
    assert (problem["status"], ".".join(problem["errors"][0]["loc"][1:])) == (422, param)


@pytest.mark.parametrize(
    ("refused", "param"),
    [
        (("unsupported_model", "no linear layer", "scope"), "objective.scope"),
        (("weights_unavailable", "no network", "pretrained"), "model.pretrained"),
        (("invalid_model_config", "a local file", "architecture", "text_cfg.name"), "model.architecture.text_cfg.name"),
    ],
)
def test_a_refusal_names_the_field_of_the_job(refused: tuple[Any, str, Any], param: str) -> None:
    class WithoutLinear:
        def lora(self, *_: object) -> None:
            raise ModelRefused(*refused)

    model: Any = WithoutLinear()
    spec = JobSpec.model_validate({**SPEC, "dataset": "ds", "objective": {"scope": "lora", "lora": {}}})
    with pytest.raises(InvalidError) as error:
        job_embedder(spec, model, None, torch.device("cpu"))
    assert (error.value.code, error.value.message, error.value.param) == (*refused[:2], param)


def test_models_are_paged_repeated_and_counted(
    client: TestClient, weights: dict[str, Tensor], database: Database, problem_of: ProblemOf
) -> None:
    content = {"file": ("a.safetensors", save(weights))}
    for _ in range(2):
        key = {"Idempotency-Key": "one"}
        first = client.post("/models", files=content, data={"architecture": "tiny"}, headers=key).json()
    second = client.post("/models", files=content, data={"architecture": "tiny"}).json()
    page = client.get("/models", params={"limit": 1}).json()
    assert (page["total"], page["items"][0]["id"]) == (2, second["id"])
    following = client.get("/models", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert (following["items"][0]["id"], following["next_cursor"]) == (first["id"], None)
    with database.transaction() as session:
        secret = api_keys.create(session, "default", None)[1]
    few = app_of(client).state.service.settings.model_copy(update={"ecif_max_stored_bytes": 3 * len(save(weights))})
    with TestClient(create_app(few), headers={"Authorization": f"Bearer {secret}"}) as limited:
        problem = problem_of(limited.post("/models", files=content, data={"architecture": "tiny"}))
        assert (problem["status"], problem["code"]) == (429, "too_many_bytes")
