"""Names and metadata: kept and told as they were given, and what listings are filtered by."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from store.database import Database
from store.tables import Delivery
from tests.service_fixtures import EmbeddingZip, ProblemOf, Refusing, Upload

RUN = {"run": "17", "who": "ünï"}


@pytest.fixture
def three(client: TestClient, upload: Upload, embedding_zip: EmbeddingZip) -> list[dict[str, Any]]:
    """Jobs with and without labels on two datasets, oldest first."""
    first, second = (upload(embedding_zip(10 + n))["id"] for n in range(2))
    named = {"name": "nightly", "metadata": RUN}
    specs = [
        {"task": "misalignment", "dataset": first, **named},
        {"task": "valuation", "dataset": first, "validation": {"fraction": 0.5}, "metadata": {"run": "18"}},
        {"task": "misalignment", "dataset": second},
    ]
    answers = [client.post("/jobs", json=spec) for spec in specs]
    assert [answer.status_code for answer in answers] == [202] * 3, [answer.text for answer in answers]
    return [answer.json() for answer in answers]


def ids(client: TestClient, **params: Any) -> list[str]:
    page = client.get("/jobs", params=params).json()
    assert page["total"] == len(page["items"])
    return [job["id"] for job in page["items"]]


def test_a_job_carries_them_beside_its_specification(client: TestClient, three: list[dict[str, Any]]) -> None:
    assert (three[0]["name"], three[0]["metadata"]) == ("nightly", RUN)
    assert (three[2]["name"], three[2]["metadata"]) == (None, {})
    assert not {"name", "metadata"} & set(three[0]["spec"])
    assert client.get(f"/jobs/{three[0]['id']}").json() == three[0]


def test_jobs_are_listed_by_each_and_by_all_together(client: TestClient, three: list[dict[str, Any]]) -> None:
    first, second, third = (job["id"] for job in three)
    dataset, created = three[0]["spec"]["dataset"], three[1]["created_at"]
    assert ids(client) == [third, second, first]
    assert ids(client, name="nightly") == [first]
    assert ids(client, name="night") == []
    assert ids(client, task="valuation") == [second]
    assert ids(client, dataset=dataset) == [second, first]
    assert ids(client, status="queued") == [third, second, first]
    assert ids(client, status="failed") == []
    assert ids(client, **{"metadata.run": "17"}) == [first]
    assert ids(client, **{"metadata.run": "17", "metadata.who": "else"}) == []
    assert ids(client, created_after=created) == [third]
    assert ids(client, created_before=created) == [first]
    assert ids(client, dataset=dataset, task="misalignment", **{"metadata.who": "ünï"}) == [first]


def test_a_cursor_goes_on_with_its_own_filters_only(
    client: TestClient, three: list[dict[str, Any]], problem_of: ProblemOf
) -> None:
    dataset = three[0]["spec"]["dataset"]
    page = client.get("/jobs", params={"dataset": dataset, "limit": 1}).json()
    assert page["total"] == 2
    after = {"cursor": page["next_cursor"], "limit": 1}
    rest = client.get("/jobs", params={"dataset": dataset, **after}).json()
    assert ([job["id"] for job in rest["items"]], rest["next_cursor"]) == ([three[0]["id"]], None)
    assert problem_of(client.get("/jobs", params=after))["code"] == "invalid_cursor"


def test_times_may_be_any(client: TestClient, three: list[dict[str, Any]]) -> None:
    everything = [job["id"] for job in reversed(three)]
    for moment in ("0001-01-01T00:00:00+14:00", "2020-01-01", "2020-01-01T00:00:00"):
        assert ids(client, created_after=moment) == everything
    assert ids(client, created_before="9999-12-31T23:59:59-14:00") == everything


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"status": "done"}, "status"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"created_before": "0.5"}, "created_before"),
        ([("metadata.a", "1"), ("metadata.a", "2")], "metadata.a"),
        ([(f"metadata.{n}", "1") for n in range(17)], "metadata"),
    ],
)
def test_a_filter_that_is_none_is_named(refusing: Refusing, problem_of: ProblemOf, params: Any, where: str) -> None:
    problem = problem_of(refusing.client.get("/jobs", params=params))
    assert (problem["status"], where in problem["detail"]) == (422, True), problem


@pytest.mark.parametrize(
    "metadata",
    [{str(n): "" for n in range(17)}, {"k" * 65: ""}, {"k": "v" * 501}, {"k": 1}, {"": "v"}, ["k"], {"k": "\0"}],
)
def test_metadata_are_bounded_pairs_of_text(
    refusing: Refusing, embedding_zip: EmbeddingZip, problem_of: ProblemOf, metadata: Any
) -> None:
    client = refusing.client
    job = {"task": "misalignment", "dataset": refusing.embeddings, "metadata": metadata}
    form = client.post(
        "/datasets", data={"metadata": json.dumps(metadata)}, files={"file": ("x.zip", embedding_zip(4))}
    )
    for answer in (client.post("/jobs", json=job), form):
        assert problem_of(answer)["status"] == 422


def test_a_dataset_has_them_however_it_comes_and_is_listed_by_them(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip
) -> None:
    uploaded = upload(embedding_zip(5), name="clean", metadata=json.dumps(RUN))
    body = {"uri": "https://example.org/x.zip", "metadata": {"run": "18"}}
    fetched = client.post("/datasets", json=body).json()
    plain = upload(embedding_zip(6))
    assert (uploaded["metadata"], fetched["metadata"], plain["metadata"]) == (RUN, {"run": "18"}, {})
    for params, wanted in (
        ({"metadata.run": "17"}, [uploaded]),
        ({"name": "clean"}, [uploaded]),
        ({"status": "ingesting", "created_after": uploaded["created_at"]}, [plain, fetched]),
        ({"status": "ready"}, []),
    ):
        assert client.get("/datasets", params=params).json()["items"] == wanted


def test_a_form_names_its_job_in_its_spec(client: TestClient, embedding_zip: EmbeddingZip) -> None:
    spec = {"task": "misalignment", "name": "nightly", "metadata": RUN}
    answer = client.post("/jobs", data={"spec": json.dumps(spec)}, files={"dataset": ("x.zip", embedding_zip(8))})
    assert answer.status_code == 202, answer.text
    assert (answer.json()["name"], answer.json()["metadata"]) == ("nightly", RUN)


def test_other_labels_under_one_key_are_another_request(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip
) -> None:
    spec = {"task": "misalignment", "dataset": upload(embedding_zip(4))["id"]}
    sent = [
        client.post("/jobs", json={**spec, **labels}, headers={"Idempotency-Key": "one"})
        for labels in ({"name": "a"}, {"name": "a"}, {"name": "b"})
    ]
    assert [answer.status_code for answer in sent] == [202, 202, 422]
    assert sent[0].json()["id"] == sent[1].json()["id"]


def test_a_notice_carries_them(
    client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, database: Database
) -> None:
    spec = {"task": "misalignment", "dataset": upload(embedding_zip(4))["id"], "name": "nightly", "metadata": RUN}
    job = client.post("/jobs", json={**spec, "notify": {"url": "https://example.org/hook"}})
    assert job.status_code == 202, job.text
    client.post(f"/jobs/{job.json()['id']}/cancel")
    with database.transaction() as session:
        notice = json.loads(session.scalars(select(Delivery.body)).one())
    assert (notice["data"]["name"], notice["data"]["metadata"]) == ("nightly", RUN)


@pytest.mark.parametrize("table", ["datasets", "jobs"])
def test_metadata_are_found_by_their_index(database: Database, table: str) -> None:
    """Among many: the planner is asked, not told."""
    row = {
        "datasets": "id, status, size_bytes, upload_blob, metadata) SELECT 'ds_' || n, 'ready', 1, 'x'",
        "jobs": "id, task, status, spec, code_version, dataset_id, finished_at, metadata) "
        "SELECT 'job_' || n, 'valuation', 'failed', '{}', '0', 'ds', now()",
    }[table]
    metadata = "jsonb_build_object('run', n::text)"
    if table == "jobs":
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO datasets (id, status, size_bytes, upload_blob) VALUES ('ds', 'ready', 1, 'x')"
            )
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} ({row}, {metadata} FROM generate_series(1, 20000) AS n")
        connection.exec_driver_sql(f"ANALYZE {table}")
        question = f'SELECT count(*) FROM {table} WHERE deleted_at IS NULL AND metadata @> \'{{"run": "17"}}\''  # noqa: S608
        assert connection.exec_driver_sql(question).scalar_one() == 1
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {question}").scalars())
    assert f"ix_{table}_metadata" in plan
