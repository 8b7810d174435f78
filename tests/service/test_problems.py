"""The `type` of a problem explains it, `/v1` is the same as the bare paths, and every request has an id."""

import io
import logging
import re

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.problems.endpoints import explanations
from store.settings import Settings
from tests.service.codes import codes
from tests.service_fixtures import ProblemOf, app_of

OF_HTTP = {"not_found", "method_not_allowed", "bad_request"}
"""What the framework answers by itself."""


def test_every_code_that_is_raised_has_a_page_and_no_other() -> None:
    raised = codes()
    assert len(raised) > 140
    assert {"out_of_memory", "too_many_streams", "unknown_model", "shard_failed"} <= set(raised)
    missing = {code: place for code, place in raised.items() if code not in explanations()}
    assert missing == {}
    assert set(explanations()) - set(raised) == OF_HTTP


def test_each_page_says_what_it_means_how_it_comes_and_what_to_do() -> None:
    for one in explanations().values():
        for text in (one.meaning, one.cause, one.remedy):
            assert len(text) > 10, one.code
            assert text == text.strip()


def test_the_type_of_a_problem_leads_to_its_page(client: TestClient, problem_of: ProblemOf) -> None:
    problem = problem_of(client.get("/jobs/job_none"))
    assert problem["type"] == "/problems/job_not_found"
    page = client.get(problem["type"])
    assert page.headers["content-type"] == "application/json"
    assert page.json() == explanations()["job_not_found"].model_dump()
    shown = client.get(problem["type"], headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert shown.headers["content-type"].startswith("text/html")
    assert shown.headers["vary"] == "Accept"
    assert explanations()["job_not_found"].remedy in shown.text
    assert "script" not in shown.text


def test_all_pages_are_listed(client: TestClient) -> None:
    assert {item["code"] for item in client.get("/problems").json()["items"]} == set(explanations())
    listed = client.get("/problems", headers={"accept": "text/html"}).text
    assert 'href="/problems/invalid_cursor"' in listed


def test_an_unknown_code_names_the_nearest(client: TestClient, problem_of: ProblemOf) -> None:
    problem = problem_of(client.get("/problems/job_not_fund"))
    assert problem["code"] == "unknown_problem"
    assert "did you mean 'job_not_found'?" in problem["detail"]


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/models", "/healthz", "/problems", "/openapi.json"])
def test_under_v1_is_the_same(client: TestClient, path: str) -> None:
    bare, under = client.get(path), client.get(f"/v1{path}")
    assert under.status_code == bare.status_code == 200
    assert under.json() == bare.json()


def test_under_v1_things_are_made_and_found(client: TestClient, problem_of: ProblemOf) -> None:
    answer = client.post("/v1/datasets", json={"uri": "https://example.org/x.zip"})
    assert answer.status_code == 201
    assert client.get(f"/datasets/{answer.json()['id']}").json() == answer.json()
    assert problem_of(client.put("/v1/jobs"))["code"] == "method_not_allowed"
    assert client.put("/v1/jobs").headers["allow"] == client.put("/jobs").headers["allow"] == "GET, POST"
    assert problem_of(client.get("/v1/nothing"))["code"] == "not_found"
    assert client.options("/v1/uploads").headers["tus-resumable"] == "1.0.0"


def test_a_page_under_v1_goes_on_under_v1(client: TestClient) -> None:
    for name in ("a", "b"):
        client.post("/datasets", json={"uri": f"https://example.org/{name}.zip"})
    assert "/v1/datasets?limit=1&cursor=" in client.get("/v1/datasets?limit=1").headers["link"]


def test_the_document_shows_each_operation_once(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/jobs" in paths
    assert not [path for path in paths if path.startswith("/v1")]


def test_requests_are_counted_by_their_bare_route(client: TestClient) -> None:
    client.get("/jobs")
    client.get("/v1/jobs")
    text = client.get("/metrics").text
    assert 'ecif_http_requests_total{method="GET",route="/jobs",status="200"} 2.0' in text
    assert "/v1" not in text


@pytest.mark.parametrize("path", ["/jobs", "/jobs/job_none", "/nothing", "/v1/jobs", "/healthz", "/jobs?x=%00"])
def test_every_answer_has_the_id_of_its_request(client: TestClient, path: str) -> None:
    made = [client.get(path).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", one) for one in made)
    assert client.get(path, headers={"x-request-id": "ci-run.17:3_b"}).headers["x-request-id"] == "ci-run.17:3_b"


@pytest.mark.parametrize("unfit", ["", "-begins", "a" * 129, "with space", "a/b", 'quo"te', "line\tbreak"])
def test_an_unfit_id_is_replaced(client: TestClient, unfit: str) -> None:
    assert client.get("/healthz", headers={"x-request-id": unfit}).headers["x-request-id"].startswith("req_")


def test_what_nobody_expected_has_an_id_in_the_answer_and_in_the_log(settings: Settings, problem_of: ProblemOf) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    try:
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:

            def broken() -> None:
                raise RuntimeError("so")

            app_of(client).add_api_route("/broken", broken)
            answer = client.get("/broken", headers={"x-request-id": "seen-17"})
        logging.getLogger("service").error("outside of a request")
    finally:
        logging.getLogger().removeHandler(handler)
    assert problem_of(answer)["code"] == "internal_error"
    assert answer.headers["x-request-id"] == "seen-17"
    assert "GET /broken failed [seen-17]\nTraceback" in written.getvalue()
    assert written.getvalue().splitlines()[-1] == "outside of a request"
