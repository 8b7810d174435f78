"""The pages for people come whole from this service: nothing is loaded from elsewhere."""

import base64
import hashlib
import re

from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from tests.service_fixtures import Answer, app_of


def test_the_documentation_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 2
    for link in links:
        assert link.startswith("http://testserver/"), link
        answer = client.get(link)
        assert answer.status_code == 200
        assert len(answer.content) > 500


def policy_of(answer: Answer) -> dict[str, list[str]]:
    directives = (directive.split() for directive in answer.headers["content-security-policy"].split(";"))
    return {name: values for name, *values in directives}


def test_the_documentation_runs_its_own_scripts_and_no_others(client: TestClient) -> None:
    page = client.get("/docs")
    policy = policy_of(page)
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == ["'self'", f"'sha256-{digest}'"]
    assert policy["connect-src"] == ["'self'"]
    for nothing in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[nothing] == ["'none'"]
    assert not re.search(r"\son\w+=|javascript:", page.text)


def test_a_page_that_says_nothing_may_do_nothing(client: TestClient) -> None:
    app_of(client).add_api_route("/page", lambda: HTMLResponse("<script>alert(1)</script>"))
    answer = client.get("/page")
    assert policy_of(answer)["default-src"] == ["'none'"]
    assert "script-src" not in policy_of(answer)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in client.get("/jobs").headers
