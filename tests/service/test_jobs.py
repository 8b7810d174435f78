"""Jobs, as a client sees them; the work itself is done in this process."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from store.database import Database
from store.tables import Job
from tests.service_fixtures import EmbeddingZip, ProblemOf, Refusing, Upload, Work

SPEC = {"task": "misalignment", "fit": None, "objective": {"batch_size": 16}}


@pytest.fixture
def ready(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> str:
    """A ready dataset of 40 embedding pairs."""
    dataset = upload(embedding_zip(40, wrong=8))
    work()
    return dataset["id"]


def test_the_answer_echoes_the_whole_specification(client: TestClient, ready: str) -> None:
    answer = client.post("/jobs", json={"task": "misalignment", "dataset": ready})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert job["status"] == "queued"
    assert job["spec"] == {
        "task": "misalignment",
        "dataset": ready,
        "validation": None,
        "model": None,
        "objective": {
            "scope": "heads",
            "lora": None,
            "batch_size": 128,
            "partitions": 1,
            "seed": 0,
            "l2": 0.3,
            "loss": None,
            "logit_bias": None,
            "temperature": 0.01,
            "mask_duplicates": True,
            "train_temperature": False,
        },
        "fit": {"epochs": 200, "learning_rate": "auto"},
        "influence": {"negative": "exact", "damping": "auto", "curvature": "gauss_newton"},
        "methods": ["ecif", "clip_score"],
        "flag": {"false_discovery_rate": 0.05, "confidence": 0.9, "by": None},
        "remove": None,
        "verify": False,
        "queries": None,
        "notify": None,
    }


def test_a_job_goes_from_queued_to_succeeded_and_says_when_to_ask_again(
    client: TestClient, ready: str, work: Work
) -> None:
    job = client.post("/jobs", json={**SPEC, "dataset": ready}).json()
    waiting = client.get(f"/jobs/{job['id']}")
    assert "retry-after" in waiting.headers
    work()
    done = client.get(f"/jobs/{job['id']}")
    assert "retry-after" not in done.headers
    assert done.json()["status"] == "succeeded"
    assert done.json()["progress"] == {"done": 40, "total": 40, "unit": "pairs"}
    assert done.json()["summary"]["counts"]["scored"] == 40
    assert [phase["phase"] for phase in done.json()["summary"]["phases"]] == [
        "plan",
        "curvature",
        "score",
        "detect",
        "rank",
        "load",
    ]
    again = client.get(f"/jobs/{job['id']}", headers={"if-none-match": done.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_data_and_specification_in_one_call(client: TestClient, embedding_zip: EmbeddingZip, work: Work) -> None:
    answer = client.post(
        "/jobs",
        files={
            "dataset": ("train.zip", embedding_zip(40)),
            "validation": ("clean.zip", embedding_zip(12, seed=1)),
            "spec": (None, json.dumps({**SPEC, "task": "valuation"}), "application/json"),
        },
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["phase"], job["status"]) == ("ingest", "queued")
    work()
    done = client.get(f"/jobs/{job['id']}").json()
    assert done["status"] == "succeeded", done["error"]
    counts = done["summary"]["counts"]
    assert (counts["scored"], counts["validation"], counts["calibration"]) == (40, 12, 0)
    assert client.get("/datasets").json()["total"] == 2


def test_a_job_on_an_upload_that_fails_fails_with_its_reason(client: TestClient, work: Work) -> None:
    files: dict[str, Any] = {"dataset": ("x.zip", b"no archive"), "spec": (None, json.dumps(SPEC))}
    job = client.post("/jobs", files=files).json()
    work()
    failed = client.get(f"/jobs/{job['id']}")
    assert failed.status_code == 200
    assert failed.json()["status"] == "failed"
    assert failed.json()["error"]["code"] == "unknown_format"


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"unknown": 1}, "unknown", "no such field"),
        ({"objective": {"batchsize": 4}}, "objective.batchsize", "did you mean 'batch_size'"),
        ({"objective": {"batch_size": 1}}, "objective.batch_size", "2"),
        ({"objective": {"temperature": 0.001}}, "objective.temperature", "0.01"),
        ({"objective": {"l2": -1}}, "objective.l2", "0"),
        ({"objective": {"scope": "lora"}}, "objective.scope", "embeddings"),
        ({"objective": {"lora": {"rank": 4}}}, "", "scope lora"),
        ({"objective": {"scope": "lora", "lora": {"rank": 0}}}, "objective.lora.rank", "1"),
        ({"task": "miracle"}, "task", "misalignment"),
        ({"methods": ["clip"]}, "methods", "clip_score"),
        ({"methods": ["ecif", "ecif"]}, "", "twice"),
        ({"objective": {"l2": 0}, "influence": {"damping": 0}}, "", "singular"),
        ({"dataset": "ds_nothing"}, "dataset", "no dataset"),
        ({"validation": {"dataset": "ds_nothing"}}, "validation.dataset", "no dataset"),
        ({"task": "valuation"}, "validation", "validation"),
        ({"model": {"architecture": "ViT-B-33"}}, "model.architecture", "did you mean"),
        ({"model": {"architecture": "ViT-B-32", "pretrained": "nowhere"}}, "model.pretrained", "laion2b"),
        ({"model": {"architecture": "tiny"}}, "model", "embeddings"),
        ({"flag": {"false_discovery_rate": 2}}, "flag.false_discovery_rate", "1"),
        ({"flag": {"confidence": 1}}, "flag.confidence", "1"),
    ],
)
def test_a_specification_that_cannot_be_names_its_field(
    refusing: Refusing, problem_of: ProblemOf, change: dict[str, Any], field: str, said: str
) -> None:
    problem = problem_of(refusing.client.post("/jobs", json={**SPEC, "dataset": refusing.embeddings, **change}))
    assert problem["status"] == 422
    located = [(".".join(error["loc"][1:]), error["msg"]) for error in problem["errors"]]
    assert any(loc.startswith(field) and said in msg for loc, msg in located), located


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"validation": {"fraction": 2}}, {"validation.fraction": "less than 1"}),
        ({"validation": {"dataset": 5}}, {"validation.dataset": "string"}),
        ({"validation": {}}, {"validation.dataset": "required", "validation.fraction": "required"}),
        ({"validation": 5}, {"validation": "Input should be an object"}),
        (
            {"validation": {"set": "x"}},
            {"validation.set": "no such field", "validation.dataset": "required"},
        ),
        ({"model": {"architecture": 5}}, {"model.architecture": "should be a"}),
        ({"influence": {"damping": -1}}, {"influence.damping": "'auto'"}),
        ({"remove": {"keys": [1]}}, {"remove.keys.0": "string"}),
        ({"remove": {"job": "j", "flagged": False}}, {"remove.flagged": "True"}),
        ({"methods": ["ecif", "x"]}, {"methods.1": "trak"}),
        ({"objective": []}, {"objective": "Input should be an object"}),
    ],
)
def test_a_field_of_several_forms_is_named_as_it_was_written(
    refusing: Refusing, problem_of: ProblemOf, change: dict[str, Any], errors: dict[str, str]
) -> None:
    problem = problem_of(refusing.client.post("/jobs", json={**SPEC, "dataset": refusing.embeddings, **change}))
    assert problem["status"] == 422
    located = {".".join(error["loc"][1:]): error["msg"] for error in reversed(problem["errors"])}
    for place, said in errors.items():
        assert said in located.pop(place)
    assert set(located) <= {
        "validation.fraction",
        "validation.marks",
        "remove.keys",
    }  # further forms, or a second reason
    words = json.dumps(problem)
    assert not [name for name in ("Validation", "Remove", "constrained", "literal[", "dict[") if name in words]


@pytest.mark.parametrize(
    ("kwargs", "status", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed_json"),
        ({"content": b'{"task": NaN}', "headers": {"content-type": "application/json"}}, 400, "malformed_json"),
        (
            {"content": b'{"task":"x","task":"y"}', "headers": {"content-type": "application/json"}},
            400,
            "malformed_json",
        ),
        ({"content": b"[]", "headers": {"content-type": "application/json"}}, 422, "invalid_request"),
        ({"content": b"task=x", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415, None),
        ({"files": {"spec": (None, "{}")}}, 422, "missing_field"),
        ({"content": b'{"task":"a\\u0000"}', "headers": {"content-type": "application/json"}}, 422, "unstorable_text"),
        ({"content": b'{"task":"\\ud800"}', "headers": {"content-type": "application/json"}}, 422, "unstorable_text"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, "malformed_json"),
        ({"content": b" " * 2_000_000, "headers": {"content-type": "application/json"}}, 413, "body_too_large"),
    ],
)
def test_a_body_that_is_no_specification_is_a_problem(
    refusing: Refusing, problem_of: ProblemOf, kwargs: dict[str, Any], status: int, code: str | None
) -> None:
    problem = problem_of(refusing.client.post("/jobs", **kwargs))
    assert problem["status"] == status
    assert code is None or problem["code"] == code


def test_what_is_not_there_is_a_404_problem(client: TestClient, problem_of: ProblemOf) -> None:
    for method, path in [
        ("GET", "/jobs/job_x"),
        ("DELETE", "/jobs/job_x"),
        ("POST", "/jobs/job_x/cancel"),
        ("GET", "/jobs/job_x/results"),
        ("GET", "/datasets/ds_x"),
        ("GET", "/datasets/ds_x/pairs"),
        ("GET", "/nowhere"),
    ]:
        assert problem_of(client.request(method, path))["status"] == 404
    assert problem_of(client.put("/jobs"))["status"] == 405
    assert problem_of(client.get("/jobs/a%00b"))["status"] == 400


def test_cancelling_is_idempotent_and_an_ended_job_cannot_be(
    client: TestClient, ready: str, work: Work, problem_of: ProblemOf
) -> None:
    first = client.post("/jobs", json={**SPEC, "dataset": ready}).json()
    for _ in range(2):
        answer = client.post(f"/jobs/{first['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    second = client.post("/jobs", json={**SPEC, "dataset": ready}).json()
    work()
    assert client.get(f"/jobs/{first['id']}").json()["status"] == "cancelled"
    assert problem_of(client.post(f"/jobs/{second['id']}/cancel"))["code"] == "job_ended"


def test_a_deleted_job_is_gone_and_lets_its_dataset_go(
    client: TestClient, ready: str, work: Work, problem_of: ProblemOf
) -> None:
    job = client.post("/jobs", json={**SPEC, "dataset": ready}).json()
    assert problem_of(client.delete(f"/datasets/{ready}"))["code"] == "dataset_in_use"
    work()
    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    assert problem_of(client.get(f"/jobs/{job['id']}"))["status"] == 404
    assert client.delete(f"/datasets/{ready}").status_code == 204


def test_a_configuration_that_no_machine_can_hold_is_refused_at_once(client: TestClient, ready: str) -> None:
    """35 GiB of weights were accepted, and killed workers one after the other."""
    tower = {"width": 8192, "layers": 12, "heads": 64}
    architecture = {"embed_dim": 1024, "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 8192, "layers": 12}}
    architecture["text_cfg"] = tower
    spec = {"task": "misalignment", "dataset": ready, "model": {"architecture": architecture, "pretrained": None}}
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "model_too_large"
    assert problem["errors"][0]["loc"] == ["body", "model", "architecture"]
    assert "GiB of weights, and there is room for 16.0" in problem["detail"]


def test_a_job_in_a_phase_that_only_a_newer_release_knows_can_be_read(
    client: TestClient, ready: str, database: Database
) -> None:
    job = client.post("/jobs", json={"task": "misalignment", "dataset": ready}).json()["id"]
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job).values(phase="tomorrow", status="running"))
    answer = client.get(f"/jobs/{job}")
    assert answer.status_code == 200
    assert (answer.json()["phase"], answer.json()["progress"]["unit"]) == ("tomorrow", "steps")
    assert client.get("/jobs").status_code == 200


def test_an_unfinished_job_has_no_results_yet(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, problem_of: ProblemOf
) -> None:
    dataset = upload(embedding_zip(4))
    job = client.post("/jobs", json={"task": "misalignment", "dataset": dataset["id"]}).json()
    assert problem_of(client.get(f"/jobs/{job['id']}/results"))["status"] == 409
