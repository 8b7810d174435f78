"""What one tenant may ask for at once; without keys there is no limit."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.limits import RequestRate
from store import api_keys
from store.errors import LimitError

SPEC = {"task": "misalignment", "fit": None}


@pytest.fixture
def limited(settings, database):
    """A service with the given limits, and a client of it for each of two tenants."""
    opened = []

    def make(**limits):
        app = create_app(settings.model_copy(update=limits))
        opened.append(TestClient(app, raise_server_exceptions=False).__enter__())
        with database.transaction() as session:
            secrets = [api_keys.create(session, tenant, None)[1] for tenant in ("a", "b")]
        return [TestClient(app, headers={"Authorization": f"Bearer {secret}"}) for secret in secrets]

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def limit_of(answer, problem_of):
    problem = problem_of(answer)
    assert problem["status"] == 429
    assert int(answer.headers["retry-after"]) > 0
    return problem["code"]


def test_requests_a_minute_are_counted_for_each_tenant(limited, problem_of):
    one, other = limited(ecif_requests_per_minute=3)
    answers = [one.get("/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert limit_of(answers[-1], problem_of) == "too_many_requests"
    assert other.get("/jobs").status_code == 200
    assert one.get("/healthz").status_code == 200


def test_a_bucket_fills_again_while_nobody_asks():
    now = 0.0
    rate = RequestRate(60, lambda: now)
    for _ in range(60):
        rate.count("a")
    with pytest.raises(LimitError) as refused:
        rate.count("a")
    assert refused.value.retry_after == 1
    now = 1.0
    rate.count("a")
    with pytest.raises(LimitError):
        rate.count("a")


def test_unfinished_jobs_are_counted_exactly_even_at_once(limited, embedding_zip, problem_of):
    one, other = limited(ecif_max_unfinished_jobs=3)
    datasets = [
        client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}).json()["id"] for client in (one, other)
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: one.post("/jobs", json={**SPEC, "dataset": datasets[0]}), range(8)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert len(made) == 3
    assert {limit_of(answer, problem_of) for answer in answers if answer.status_code != 202} == {"too_many_jobs"}
    assert other.post("/jobs", json={**SPEC, "dataset": datasets[1]}).status_code == 202
    one.post(f"/jobs/{made[0]}/cancel")
    assert one.post("/jobs", json={**SPEC, "dataset": datasets[0]}).status_code == 202


def test_stored_bytes_are_counted_and_given_back(limited, embedding_zip, settings, problem_of):
    content = embedding_zip(4)
    one, other = limited(ecif_max_stored_bytes=len(content) * 2)
    files, key = {"file": ("x.zip", content)}, {"Idempotency-Key": "1"}
    first = one.post("/datasets", files=files, headers=key).json()["id"]
    assert limit_of(one.post("/datasets", files={"file": ("x.zip", content * 2)}), problem_of) == "too_many_bytes"

    def undeclared():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        yield content * 2
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert limit_of(one.post("/datasets", content=undeclared(), headers=headers), problem_of) == "too_many_bytes"
    assert len([path for path in (settings.ecif_home / "blobs").rglob("*") if path.is_file()]) == 1
    assert one.post("/datasets", files=files, headers=key).json()["id"] == first
    assert other.post("/datasets", files=files).status_code == 201
    one.delete(f"/datasets/{first}")
    assert one.post("/datasets", files=files).status_code == 201


def test_without_keys_there_is_no_limit(settings, embedding_zip):
    least = {"ecif_requests_per_minute": 1, "ecif_max_unfinished_jobs": 1, "ecif_max_stored_bytes": 1}
    with TestClient(create_app(settings.model_copy(update=least))) as client:
        dataset = client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}).json()["id"]
        answers = [client.post("/jobs", json={**SPEC, "dataset": dataset}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
