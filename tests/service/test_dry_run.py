"""`POST /jobs?dry_run=true`: what a job would take, by the jobs that were; nothing is made."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from store import api_keys
from store.database import Database
from store.tables import Dataset, Job, Shard
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Upload, Work


def ask(client: TestClient, spec: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = client.post("/jobs", json=spec, params={"dry_run": "true"}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def run(client: TestClient, work: Work, spec: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    work()
    job = client.get(f"/jobs/{answer.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    return job


def rows_of(database: Database) -> tuple[int, ...]:
    with database.transaction() as session:
        return tuple(len(session.scalars(select(table)).all()) for table in (Job, Dataset, Shard))


def plant(database: Database, job: dict[str, Any], **changed: float) -> None:
    """Let the phases of a finished job have taken something else."""
    phases = [phase | changed for phase in job["summary"]["phases"]]
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job["id"]).values(summary=job["summary"] | {"phases": phases}))


SPEC: dict[str, Any] = {
    "task": "misalignment",
    "objective": {"batch_size": 20, "temperature": 0.2},
    "fit": {"epochs": 20},
}


@pytest.fixture
def sets(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> tuple[str, str, str]:
    """Of 60 and of 120 pairs, and a clean one of 40."""
    made = (embedding_zip(60), embedding_zip(120, seed=3), embedding_zip(40, seed=9))
    ids = tuple(upload(content)["id"] for content in made)
    work()
    return ids


def test_times_go_with_the_size(client: TestClient, database: Database, sets: tuple[str, str, str], work: Work) -> None:
    small, large, clean = sets
    spec = SPEC | {"validation": {"dataset": clean}}
    before = run(client, work, {**spec, "dataset": small})
    plant(database, before, seconds=3.0, memory_bytes=500, device_memory_bytes=70)
    same = ask(client, {**spec, "dataset": small})
    assert [one["phase"] for one in same["phases"]] == [one["phase"] for one in before["summary"]["phases"]]
    assert [one["shards"] for one in same["phases"]] == [one["shards"] for one in before["summary"]["phases"]]
    assert {(one["seconds"], one["based_on"], one["reason"]) for one in same["phases"]} == {(3.0, 1, None)}
    assert (same["pairs"], same["results"]) == (60 + 40, 60)  # the clean set calibrates
    assert (same["seconds"], same["memory_bytes"], same["device_memory_bytes"]) == (3.0 * len(same["phases"]), 500, 70)

    other = {**spec, "dataset": large, "fit": {"epochs": 40}}
    other["objective"] = SPEC["objective"] | {"partitions": 2}
    seconds = {one["phase"]: one["seconds"] for one in ask(client, other)["phases"]}
    pairs = (120 + 40) / (60 + 40)
    assert seconds["fit"] == pytest.approx(3 * pairs * 2 * 2, rel=1e-3)
    assert seconds["score"] == seconds["curvature"] == pytest.approx(3 * pairs * 2, rel=1e-3)
    assert seconds["plan"] == seconds["rank"] == pytest.approx(3 * pairs, rel=1e-3)
    assert seconds["load"] == pytest.approx(3 * 120 / 60, rel=1e-3)


def test_of_several_jobs_those_nearest_in_size_count(
    client: TestClient, database: Database, sets: tuple[str, str, str], work: Work
) -> None:
    small, large, _ = sets
    for seconds in (1.0, 2.0, 9.0):
        plant(database, run(client, work, {**SPEC, "dataset": small}), seconds=seconds)
    plant(database, run(client, work, {**SPEC, "dataset": large}), seconds=100.0)
    estimated = ask(client, {**SPEC, "dataset": small})
    assert {(one["seconds"], one["based_on"]) for one in estimated["phases"]} == {(2.0, 3)}


def test_a_real_job_says_how_much_memory_it_took(client: TestClient, sets: tuple[str, str, str], work: Work) -> None:
    job = run(client, work, {**SPEC, "dataset": sets[0]})
    for phase in job["summary"]["phases"]:
        assert 10 << 20 < phase["memory_bytes"] < 64 << 30
    estimated = ask(client, {**SPEC, "dataset": sets[0]})
    assert estimated["memory_bytes"] == max(phase["memory_bytes"] for phase in job["summary"]["phases"])


@pytest.mark.parametrize(
    "changed",
    [
        {"methods": ["clip_score"], "fit": None},
        {"methods": ["ecif", "tracin", "ekfac_if", "lemon"], "validation": {"fraction": 0.2}},
        {"influence": {"curvature": "projected"}},
        {"influence": {"curvature": "ekfac"}},
        {"task": "removal", "remove": {"keys": ["3"]}},
        {"task": "traceback", "queries": {"dataset": "@clean", "top": 5}},
    ],
)
def test_the_phases_and_shards_are_those_that_come(
    client: TestClient, sets: tuple[str, str, str], work: Work, changed: dict[str, Any]
) -> None:
    spec = {**SPEC, "dataset": sets[0], **changed}
    if "queries" in spec:
        spec["queries"] = spec["queries"] | {"dataset": sets[2]}
    estimated = ask(client, spec)
    assert all(one["seconds"] is None and one["based_on"] is None and one["reason"] for one in estimated["phases"])
    assert estimated["seconds"] is None
    job = run(client, work, spec)
    assert estimated["spec"] == client.post("/jobs", json=spec, params={"dry_run": True}).json()["spec"] == job["spec"]
    counts = job["summary"]["counts"]
    assert estimated["pairs"] == counts["scored"] + counts["calibration"]
    assert [one["phase"] for one in estimated["phases"]] == [one["phase"] for one in job["summary"]["phases"]]
    again = ask(client, spec)
    assert again["seconds"] is not None
    assert [one["shards"] for one in again["phases"]] == [one["shards"] for one in job["summary"]["phases"]]
    assert again["results"] == client.get(f"/jobs/{job['id']}/results").json()["total"]


def test_what_was_encoded_before_says_nothing_of_encoding(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    dataset = upload(image_zip(6))["id"]
    work()
    spec = {
        "task": "misalignment",
        "dataset": dataset,
        "model": {"architecture": "tiny", "pretrained": None},
        "methods": ["clip_score"],
        "fit": None,
    }

    def encode() -> dict[str, Any]:
        return next(one for one in ask(client, spec)["phases"] if one["phase"] == "encode")

    first = run(client, work, spec)
    assert (encode()["based_on"], encode()["shards"]) == (1, 1)
    run(client, work, spec)  # finds its features
    assert encode()["based_on"] == 1
    client.delete(f"/jobs/{first['id']}")
    assert encode()["based_on"] is None
    assert "encoded already" in encode()["reason"]


def test_nothing_is_made_and_no_key_is_used(
    client: TestClient, database: Database, sets: tuple[str, str, str], work: Work
) -> None:
    spec = {**SPEC, "dataset": sets[0]}
    before = rows_of(database)
    for other in (spec, spec | {"methods": ["clip_score"]}):  # of other content: a key would be refused
        ask(client, other, **{"Idempotency-Key": "one"})
    assert rows_of(database) == before
    assert client.post("/jobs", json=spec, headers={"Idempotency-Key": "one"}).status_code == 202


def test_another_tenant_s_jobs_tell_nothing(
    client: TestClient, database: Database, embedding_zip: EmbeddingZip, work: Work
) -> None:
    with database.transaction() as session:
        secrets = [api_keys.create(session, tenant, None)[1] for tenant in ("ours", "theirs")]
    ours, theirs = (TestClient(client.app, headers={"Authorization": f"Bearer {secret}"}) for secret in secrets)
    specs = []
    for tenant in (ours, theirs):
        answer = tenant.post("/datasets", files={"file": ("data.zip", embedding_zip(20))})
        specs.append({**SPEC, "dataset": answer.json()["id"]})
    work()
    run(theirs, work, specs[1])
    assert ask(theirs, specs[1])["seconds"] is not None
    assert all(one["based_on"] is None for one in ask(ours, specs[0])["phases"])


def test_a_dataset_that_is_not_ready_is_not_counted(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip
) -> None:
    dataset = upload(embedding_zip(10))["id"]
    estimated = ask(client, {"task": "misalignment", "dataset": dataset})
    assert (estimated["pairs"], estimated["seconds"]) == (None, None)
    assert all(dataset in one["reason"] for one in estimated["phases"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"dataset": "ds_nothing"}, "unknown_dataset"),
        ({"task": "valuation"}, "validation_required"),
        ({"model": {"architecture": "tiny"}}, "model_not_used"),
        ({"methods": []}, None),
        ({"notify": {"url": "http://127.0.0.1/hook"}}, None),
    ],
)
def test_it_refuses_what_a_real_one_refuses(
    client: TestClient, sets: tuple[str, str, str], problem_of: ProblemOf, change: dict[str, Any], code: str | None
) -> None:
    spec = {**SPEC, "dataset": sets[0], **change}
    dry, real = (problem_of(client.post("/jobs", json=spec, params=params)) for params in ({"dry_run": True}, {}))
    assert dry["status"] == 422
    assert code is None or dry["code"] == code
    unequal = {"instance", "request_id"}
    assert {k: v for k, v in dry.items() if k not in unequal} == {k: v for k, v in real.items() if k not in unequal}


def test_an_upload_is_sent_elsewhere_first(
    client: TestClient, embedding_zip: EmbeddingZip, database: Database, problem_of: ProblemOf
) -> None:
    files, data = {"dataset": ("a.zip", embedding_zip(10))}, {"spec": '{"task": "misalignment"}'}
    problem = problem_of(client.post("/jobs", files=files, data=data, params={"dry_run": True}))
    assert (problem["status"], problem["code"]) == (422, "dry_run_of_upload")
    assert "/datasets" in problem["detail"]
    assert rows_of(database) == (0, 0, 0)
