"""Who is answered: whoever shows a key, and nobody but this machine where there are none."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service import keys
from service.app import create_app
from store import api_keys
from store.database import Database
from store.settings import Settings
from store.tables import ApiKey
from tests.service_fixtures import ProblemOf

Asking = Callable[..., TestClient]
NewKey = Callable[..., str]

LOOPBACK = "http://127.0.0.1:8000"


@pytest.fixture
def asking(settings: Settings) -> Iterator[Asking]:
    """A client that comes from an address, as a server would tell it."""
    opened = []

    def make(peer: str = "127.0.0.1", base_url: str = LOOPBACK, **changes: Any) -> TestClient:
        app = create_app(settings.model_copy(update=changes))
        client = TestClient(app, base_url=base_url, client=(peer, 50000), raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def key(database: Database) -> NewKey:
    def make(tenant: str = "default") -> str:
        with database.transaction() as session:
            return api_keys.create(session, tenant, None)[1]

    return make


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_without_keys_this_machine_is_answered_unasked(asking: Asking, peer: str) -> None:
    assert asking(peer).get("/jobs").status_code == 200


@pytest.mark.parametrize("peer", ["10.0.0.5", "93.184.216.34", "2001:db8::1", "fe80::1%eth0", "no address"])
def test_without_keys_others_are_told_how_to_make_one(asking: Asking, problem_of: ProblemOf, peer: str) -> None:
    answer = asking(peer).get("/jobs")
    problem = problem_of(answer)
    assert (problem["status"], problem["code"]) == (401, "no_keys_yet")
    assert "python -m service.keys create" in problem["detail"]
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_without_keys_others_are_answered_where_the_settings_say_so(asking: Asking) -> None:
    assert asking("10.0.0.5", ecif_open=True).get("/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1.example"},
        {"Host": "[::1"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_without_keys_pages_of_other_sites_cannot_use_the_browser_of_this_machine(
    asking: Asking, problem_of: ProblemOf, headers: dict[str, str]
) -> None:
    assert problem_of(asking().post("/jobs", json={}, headers=headers))["status"] == 403
    assert problem_of(asking().get("/jobs", headers=headers))["status"] == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_without_keys_what_a_browser_opens_itself_is_answered(asking: Asking, site: str) -> None:
    assert asking().get("/jobs", headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize(
    "header", ["Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Anything", "X-Real-IP"]
)
def test_without_keys_nobody_behind_a_proxy_on_this_machine_is_answered(
    asking: Asking, key: NewKey, problem_of: ProblemOf, header: str
) -> None:
    client, headers = asking(), {header: "127.0.0.1"}
    problem = problem_of(client.get("/jobs", headers=headers))
    assert (problem["status"], problem["code"]) == (401, "no_keys_yet")
    assert header.lower() in problem["detail"]
    assert asking(ecif_open=True).get("/jobs", headers=headers).status_code == 200
    assert client.get("/jobs", headers=headers | bearer(key())).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "ecif.localhost"])
def test_without_keys_pages_of_its_own_are_answered(asking: Asking, host: str) -> None:
    assert asking().get("/jobs", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.5"])
def test_from_the_first_key_on_everybody_shows_one(
    asking: Asking, key: NewKey, problem_of: ProblemOf, peer: str
) -> None:
    client, secret = asking(peer), key()
    tries: list[tuple[Any, str]] = [
        ({}, "missing_key"),
        ({"Authorization": "Basic eDp5"}, "missing_key"),
        (bearer("ecif_wrong"), "invalid_key"),
        (bearer(secret.upper()), "invalid_key"),
        ({"Authorization": "Bearer é".encode("latin-1")}, "invalid_key"),
    ]
    for headers, code in tries:
        answer = client.get("/jobs", headers=headers)
        assert (problem_of(answer)["status"], problem_of(answer)["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/jobs", headers=bearer(secret)).status_code == 200
    assert client.get("/jobs", headers={"Authorization": f"bearer {secret}"}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_some_pages_are_open_to_everybody(asking: Asking, key: NewKey, path: str) -> None:
    key()
    assert asking("10.0.0.5").get(path).status_code == 200


def test_a_refused_upload_is_not_read(asking: Asking, key: NewKey, settings: Settings) -> None:
    key()

    def body() -> Iterator[bytes]:
        yield pytest.fail("read")

    assert asking().post("/datasets", content=body(), headers={"content-type": "text/plain"}).status_code == 401


def test_a_revoked_key_ends_at_once_and_the_last_one_does_not_open_the_doors(
    asking: Asking, key: NewKey, database: Database
) -> None:
    client, secret = asking(), key()
    assert client.get("/jobs", headers=bearer(secret)).status_code == 200
    with database.transaction() as session:
        api_keys.revoke(session, secret[:11])
    assert client.get("/jobs", headers=bearer(secret)).status_code == 401
    assert client.get("/jobs").status_code == 401


def test_the_log_says_at_the_start_that_it_is_open(
    asking: Asking, key: NewKey, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        asking()
        assert "no API keys: open to every user of this machine" in caplog.text
        caplog.clear()
        key()
        asking()
        assert "API keys" not in caplog.text


def test_the_command_makes_lists_and_revokes(settings: Settings, database: Database) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.keys", *arguments]
        environment = os.environ | {"DATABASE_URL": settings.database_url}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    made = run("create", "--tenant", "lab", "--name", "nightly run")
    secret = made.stdout.strip()
    assert (made.returncode, len(secret)) == (0, len("ecif_") + 32)
    with database.transaction() as session:
        assert api_keys.find(session, secret).tenant == "lab"
        row = session.scalars(select(ApiKey)).one()
        assert secret not in repr(vars(row))
    listed = run("list").stdout
    assert secret not in listed
    assert listed.split("\t")[1:3] == [f"{secret[:11]}…", "lab"]
    assert run("revoke", row.id).returncode == 0
    assert "revoked" in run("list").stdout
    assert run("revoke", "key_nothing").returncode == 2


def test_the_command_refuses_what_cannot_be(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keys, "get_settings", lambda: settings)
    assert keys.main(["create", "--tenant", "No Tenant"]) == 2
    assert "a-z" in capsys.readouterr().err
    monkeypatch.setattr(keys, "get_settings", lambda: settings.model_copy(update={"database_url": ""}))
    assert keys.main(["list"]) == 2
