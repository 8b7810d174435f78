"""A browser shows an API key once. Its cookie is good until it signs out, and changes nothing for other sites."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.access import COOKIE
from service.app import create_app
from store import api_keys
from store.database import Database
from store.settings import Settings
from store.tables import Job
from tests.service_fixtures import ProblemOf

SAME = {"Origin": "https://ecif.example", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def secret(database: Database) -> str:
    with database.transaction() as session:
        return api_keys.create(session, "lab", "Ada")[1]


@pytest.fixture
def visitor(settings: Settings, secret: str) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="https://ecif.example", follow_redirects=False) as client:
        yield client


def sign_in(visitor: TestClient, secret: str, **headers: str) -> int:
    answer = visitor.post("/sign-in?next=/new", data={"key": secret}, headers=SAME | headers)
    return answer.status_code


def test_a_page_sends_to_the_sign_in_and_back(visitor: TestClient, secret: str) -> None:
    answer = visitor.get("/jobs/job_1/explore?sort=rank")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fjobs%2Fjob_1%2Fexplore%3Fsort%3Drank"
    assert sign_in(visitor, "ecif_wrong") == 401
    assert visitor.get("/").status_code == 303
    signed = visitor.post("/sign-in?next=/new", data={"key": secret}, headers=SAME)
    assert (signed.status_code, signed.headers["location"]) == (303, "/new")
    cookie = signed.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "secure", "samesite=strict", "path=/", "max-age=43200"))
    assert secret not in cookie
    assert visitor.get("/").status_code == 200
    assert visitor.get("/jobs").status_code == 200


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https://evil.example", "/\r\nx: y"])
def test_nobody_is_sent_elsewhere(visitor: TestClient, secret: str, target: str) -> None:
    answer = visitor.post("/sign-in", params={"next": target}, data={"key": secret}, headers=SAME)
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {},
    ],
)
def test_a_cookie_changes_nothing_for_another_site(
    visitor: TestClient, secret: str, headers: dict[str, str], problem_of: ProblemOf
) -> None:
    sign_in(visitor, secret)
    spec = {"task": "misalignment", "dataset": "ds_0"}
    assert problem_of(visitor.post("/jobs", json=spec, headers=headers))["code"] == "foreign_origin"
    assert problem_of(visitor.post("/jobs", json=spec, headers=SAME))["code"] == "unknown_dataset"
    keyed = visitor.post("/jobs", json=spec, headers=headers | {"Authorization": f"Bearer {secret}"})
    assert problem_of(keyed)["code"] == "unknown_dataset"  # what has a key was told so by its sender
    assert visitor.post("/sign-in", data={"key": secret}, headers=headers).status_code == 403


def test_a_session_ends_with_a_sign_out_and_with_its_key(
    visitor: TestClient, database: Database, secret: str, problem_of: ProblemOf
) -> None:
    sign_in(visitor, secret)
    cookie = visitor.cookies[COOKIE]
    assert visitor.post("/sign-out", headers=SAME).headers["location"] == "/sign-in"
    visitor.cookies.set(COOKIE, cookie)
    assert problem_of(visitor.get("/jobs"))["status"] == 401
    sign_in(visitor, secret)
    assert visitor.get("/jobs").status_code == 200
    with database.transaction() as session:
        api_keys.revoke(session, api_keys.find(session, secret).id)
    assert problem_of(visitor.get("/jobs"))["status"] == 401


@pytest.mark.parametrize("path", ["/jobs/{job}/explore", "/jobs/{job}/explore/1", "/jobs/{job}/explore/sample"])
def test_pages_of_another_tenant_are_not_there(visitor: TestClient, database: Database, secret: str, path: str) -> None:
    with database.of_tenant("other").transaction() as session:
        session.add(Job(id="job_1", task="valuation", status="running", spec={}, code_version="0", dataset_id="ds_1"))
    sign_in(visitor, secret)
    answer = visitor.get(path.format(job="job_1"))
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
