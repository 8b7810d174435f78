"""What belongs to another tenant is not there: not by its id, not in a list, not in a count."""

from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

from store import api_keys
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Upload, Work, app_of

SPEC = {"task": "misalignment", "fit": None, "objective": {"batch_size": 16}}


@pytest.fixture
def tenants(client: TestClient, database: Database, settings: Settings) -> list[TestClient]:
    """A client for each of two tenants."""
    with database.transaction() as session:
        secrets = [api_keys.create(session, tenant, None)[1] for tenant in ("ours", "theirs")]
    return [TestClient(client.app, headers={"Authorization": f"Bearer {secret}"}) for secret in secrets]


_NOBODYS = ("/problems/{code}",)
"""What is explained to everybody."""


@pytest.fixture
def theirs(tenants: list[TestClient], image_zip: ImageZip, embedding_zip: EmbeddingZip, work: Work) -> dict[str, str]:
    """Ids of a dataset of images, one of embeddings, a job that succeeded on the latter, and a model."""
    client = tenants[1]
    sent = [client.post("/datasets", files={"file": ("x.zip", content)}) for content in (image_zip(2), embedding_zip())]
    images, embeddings = [answer.json()["id"] for answer in sent]
    spec = {**SPEC, "dataset": embeddings, "notify": {"url": "https://hooks.example.org/x"}}
    job = client.post("/jobs", json=spec).json()["id"]
    model = client.post("/models", files={"file": save({"w": torch.zeros(2)})}, data={"architecture": "tiny"}).json()
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    upload = client.post("/uploads", headers={"upload-length": "9"}).headers["location"].removeprefix("/uploads/")
    return {
        "dataset_id": images,
        "embeddings": embeddings,
        "job_id": job,
        "model_id": model["id"],
        "key": "images/0.png",
        "upload_id": upload,
        "delivery_id": client.get(f"/jobs/{job}/deliveries").json()["items"][0]["id"],
    }


def test_every_route_with_an_id_answers_another_tenant_as_if_there_were_none(
    client: TestClient, tenants: list[TestClient], theirs: dict[str, str], problem_of: ProblemOf
) -> None:
    ours, _ = tenants
    nothing = {name: f"{name}_nothing" for name in theirs} | {"key": "images/0.png"}
    # What an endpoint asks for before it looks whether there is anything.
    headers = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
    sent: dict[str, dict[str, Any]] = {"put": {"json": {"mark": "keep"}}}
    walked = 0
    for path, operations in app_of(client).openapi()["paths"].items():
        if "{" not in path or path in _NOBODYS:
            continue
        for method in operations:
            answers = [
                ours.request(
                    method, path.format(**ids), **sent.get(method, {"headers": headers}), params={"with": ids["job_id"]}
                )
                for ids in (theirs, nothing)
            ]
            assert [answer.status_code for answer in answers] == [404, 404], (method, path)
            walked += 1
            if method == "head":
                continue
            of_theirs, of_nothing = map(problem_of, answers)
            for name in ("dataset_id", "job_id", "model_id", "upload_id"):
                of_theirs["detail"] = of_theirs["detail"].replace(theirs[name], nothing[name])
            assert of_theirs == of_nothing
    assert walked >= 12


def test_no_route_but_the_open_ones_answers_without_a_key(
    client: TestClient, tenants: list[TestClient], theirs: dict[str, str], problem_of: ProblemOf
) -> None:
    for path, operations in app_of(client).openapi()["paths"].items():
        for method in operations:
            if path not in ("/healthz", "/readyz", "/problems", *_NOBODYS):
                answer = client.request(method, path.format(**theirs))
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"


def test_the_walk_left_everything_where_it_was(
    client: TestClient, tenants: list[TestClient], theirs: dict[str, str], problem_of: ProblemOf
) -> None:
    test_every_route_with_an_id_answers_another_tenant_as_if_there_were_none(client, tenants, theirs, problem_of)
    _, them = tenants
    assert them.get(f"/datasets/{theirs['dataset_id']}").json()["status"] == "ready"
    assert them.get(f"/jobs/{theirs['job_id']}").json()["status"] == "succeeded"
    assert them.get(f"/datasets/{theirs['dataset_id']}/pairs/images%2F0.png/image").status_code == 200
    assert them.get(f"/jobs/{theirs['job_id']}/results").json()["total"] == 40


def test_lists_and_their_counts_are_of_the_tenant(
    tenants: list[TestClient], theirs: dict[str, str], image_zip: ImageZip
) -> None:
    ours, them = tenants
    for path, total in (("/datasets", 2), ("/jobs", 1), ("/models", 1)):
        assert ours.get(path).json() == {"items": [], "next_cursor": None, "total": 0}
        assert them.get(path).json()["total"] == len(them.get(path).json()["items"]) == total
    assert ours.post("/datasets", files={"file": ("x.zip", image_zip(1))}).status_code == 201
    assert (ours.get("/datasets").json()["total"], them.get("/datasets").json()["total"]) == (1, 2)


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"dataset": "{embeddings}"}, "dataset"),
        ({"dataset": "{ours}", "model": {"id": "{model_id}"}}, "model.id"),
        ({"dataset": "{ours}", "validation": {"dataset": "{embeddings}"}}, "validation.dataset"),
        ({"dataset": "{ours}", "task": "removal", "validation": {"fraction": 0.5},
          "remove": {"job": "{job_id}", "flagged": True}}, "remove.job"),
    ],
)  # fmt: skip
def test_a_job_cannot_name_what_another_tenant_has(
    tenants: list[TestClient],
    theirs: dict[str, str],
    embedding_zip: EmbeddingZip,
    work: Work,
    problem_of: ProblemOf,
    spec: dict[str, Any],
    param: str,
) -> None:
    ours, _ = tenants
    ids = theirs | {"ours": ours.post("/datasets", files={"file": ("x.zip", embedding_zip())}).json()["id"]}
    work()

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return value.format(**ids) if isinstance(value, str) else value

    problem = problem_of(ours.post("/jobs", json=filled({**SPEC, **spec})))
    assert (problem["status"], ".".join(problem["errors"][0]["loc"][1:])) == (422, param)
    assert problem["code"] in ("unknown_dataset", "unknown_model", "unknown_job")
    assert ours.get("/jobs").json()["total"] == 0


def test_a_key_of_a_request_is_of_its_tenant(tenants: list[TestClient], image_zip: ImageZip) -> None:
    files, key = {"file": ("x.zip", image_zip(1))}, {"Idempotency-Key": "1"}
    first, second = (client.post("/datasets", files=files, headers=key).json()["id"] for client in tenants)
    assert first != second


def test_what_was_made_without_keys_belongs_to_the_default_tenant(
    client: TestClient, upload: Upload, image_zip: ImageZip, database: Database
) -> None:
    dataset = upload(image_zip(1))["id"]
    with database.transaction() as session:
        secret = api_keys.create(session, "default", None)[1]
    assert client.get(f"/datasets/{dataset}").status_code == 401
    assert client.get(f"/datasets/{dataset}", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_cursors_of_another_tenant_show_nothing_of_them(tenants: list[TestClient], theirs: dict[str, str]) -> None:
    ours, them = tenants
    cursor = them.get("/datasets", params={"limit": 1}).json()["next_cursor"]
    assert ours.get("/datasets", params={"cursor": cursor}).json()["items"] == []
