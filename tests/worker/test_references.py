"""Datasets by reference: fetched from real servers, over TLS, over http, and from an S3-compatible one."""

import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastapi.testclient import TestClient

from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.errors import InvalidError
from store.references import check_reference, shown
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, ImageZip, ProblemOf, Refusing
from tests.worker.conftest import FileServer, Post
from worker.attempts.attempt import Workplace, work_once
from worker.outbound.addresses import is_public
from worker.outbound.bounds import Pace
from worker.outbound.copying import fetch


def test_a_dataset_is_fetched_and_ingested(server: FileServer, post: Post, image_zip: ImageZip) -> None:
    made, files, asked, _ = server
    files["/some/train.zip"] = image_zip(5)
    found = post(f"http://127.0.0.1:{made.server_port}/some/train.zip?signature=secret")
    assert (found["status"], found["pair_count"], found["name"]) == ("ready", 5, "train.zip")
    assert found["digest"].startswith("sha256:")
    assert found["source"] == f"http://127.0.0.1:{made.server_port}/some/train.zip"  # and no signature
    assert asked[0]["path"].endswith("?signature=secret")


def test_a_broken_connection_is_taken_up_where_it_broke(
    server: FileServer, post: Post, image_zip: ImageZip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.outbound.web._PAUSE_SECONDS", 0.01)
    made, files, asked, cut = server
    files["/train.zip"] = image_zip(5)
    cut += [True, True]
    assert post(f"http://127.0.0.1:{made.server_port}/train.zip")["pair_count"] == 5
    assert len(asked) == 3
    assert asked[1]["If-Range"] == '"one"'
    assert int(asked[2]["Range"][6:-1]) > int(asked[1]["Range"][6:-1]) > 0


def test_a_job_may_name_a_dataset_that_is_still_to_be_fetched(
    server: FileServer, near: Settings, database: Database, blobs: Blobs, embedding_zip: EmbeddingZip
) -> None:
    made, files, _, _ = server
    files["/train.zip"] = embedding_zip(30)
    with TestClient(create_app(near)) as client:
        dataset = client.post("/datasets", json={"uri": f"http://127.0.0.1:{made.server_port}/train.zip"}).json()
        body = {"task": "misalignment", "dataset": dataset["id"], "methods": ["clip_score"]}
        job = client.post("/jobs", json=body).json()
        assert (job["status"], job["dataset_digest"]) == ("queued", None)
        while work_once(Workplace(near, database, blobs)) is not None:
            pass
        job = client.get(f"/jobs/{job['id']}").json()
        assert job["status"] == "succeeded"
        assert job["dataset_digest"] == client.get(f"/datasets/{dataset['id']}").json()["digest"]


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("/absent.zip", "fetch_refused", "404"),
        ("/moved", "redirected", "redirect"),
        ("/empty", "empty_file", "empty"),
        ("/large", "too_large", "1,000"),
        ("/noise.zip", "unknown_format", "understood"),
    ],
)
def test_what_cannot_be_had_fails_the_dataset_with_its_reason(
    server: FileServer, near: Settings, database: Database, blobs: Blobs, path: str, code: str, says: str
) -> None:
    made, files, _, _ = server
    files |= {"/empty": b"", "/large": bytes(1001), "/noise.zip": b"\x00\x01noise" * 9}
    bounded = near.model_copy(update={"ecif_max_upload_bytes": 1000})
    with TestClient(create_app(bounded)) as client:
        dataset = client.post("/datasets", json={"uri": f"http://127.0.0.1:{made.server_port}{path}"}).json()
        while work_once(Workplace(bounded, database, blobs)) is not None:
            pass
        found = client.get(f"/datasets/{dataset['id']}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", code)
    assert says in found["error"]["message"]


def test_the_name_is_checked_and_the_address_is_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS to a name whose address is asked for once."""
    made, files, asked, _ = server
    files["/file"] = b"content"
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("data.example.org").configure_cert(context)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    resolved, really = [], socket.getaddrinfo

    def resolve(host: str, port: int, *given: Any, **named: Any) -> Any:
        resolved.append(host)
        return really("127.0.0.1" if host.endswith("example.org") else host, port, *given, **named)

    monkeypatch.setattr("worker.outbound.addresses.socket.getaddrinfo", resolve)

    def copy(host: str) -> Any:
        uri = f"https://{host}:{made.server_port}/file"
        return fetch(uri, tmp_path / "copy", most=100, pace=Pace(60, 0), private_too=True, progress=lambda *_: None)

    assert copy("data.example.org").size_bytes == 7
    assert resolved.count("data.example.org") == 1
    assert asked[0]["Host"] == f"data.example.org:{made.server_port}"
    monkeypatch.setattr("worker.outbound.web._TRIES", 1)
    with pytest.raises(Exception, match=r"(?i)hostname mismatch"):
        copy("other.example.org")


def test_s3(post: Post, s3_bucket: Any, image_zip: ImageZip) -> None:
    s3_bucket.put_object(Bucket="pairs", Key="of mine/train.zip", Body=image_zip(4))
    found = post("s3://pairs/of%20mine/train.zip", name="mine")
    assert (found["status"], found["pair_count"], found["name"]) == ("ready", 4, "mine")
    found = post("s3://pairs/absent.zip")
    assert (found["status"], found["error"]["code"]) == ("failed", "fetch_refused")


@pytest.mark.parametrize(
    "uri",
    [
        "train.zip",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://data.example.org/x",
        "ftp://data.example.org/x",
        "https://",
        "https://data.example.org",
        "https://data.example.org/folder/",
        "https://me:secret@data.example.org/x",
        "https://data.example.org/x#y",
        "https://data.example.org/a b",
        "https://data.example.org:99999/x",
        "https://[::1/x",
        "s3://Bad_Bucket!/x",
        "s3://bucket:80/x",
        "s3://bucket/x?versionId=1",
        "https://data.example.org/" + "x" * 4000,
    ],
)
def test_a_uri_that_is_none_is_a_422(refusing: Refusing, problem_of: ProblemOf, uri: str) -> None:
    problem = problem_of(refusing.client.post("/datasets", json={"uri": uri}))
    assert (problem["status"], problem["code"]) == (422, "invalid_uri")


def test_buckets_of_a_service_with_keys_are_listed_first(settings: Settings) -> None:
    with pytest.raises(InvalidError, match="ECIF_SOURCES"):
        check_reference("s3://secrets/x", settings, trusted=False)
    check_reference("https://data.example.org/x", settings, trusted=False)
    check_reference("s3://secrets/x", settings, trusted=True)
    listed = settings.model_copy(update={"ecif_sources": "s3://public/ https://data.example.org/"})
    check_reference("s3://public/x", listed, trusted=False)
    for uri in ("s3://secrets/x", "https://elsewhere.org/x"):
        with pytest.raises(InvalidError, match="only from"):
            check_reference(uri, listed, trusted=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3", "224.0.0.1",
        "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_public(ip_address(address))
    entries = [(0, 0, 0, "", ("93.184.215.14", 443)), (0, 0, 0, "", (address, 443))]
    monkeypatch.setattr("worker.outbound.addresses.socket.getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(InvalidError, match="public"):
        fetch(
            "https://rebound.example.org/x",
            tmp_path / "x",
            most=1,
            pace=Pace(60, 0),
            private_too=False,
            progress=lambda *_: None,
        )


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f::1", "::ffff:93.184.215.14"])
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


def test_signatures_are_not_shown() -> None:
    assert shown("https://h/x?sig=1") == "https://h/x"


def test_other_bodies_are_refused(client: TestClient, problem_of: ProblemOf) -> None:
    assert problem_of(client.post("/datasets", json={"url": "https://h/x"}))["status"] == 422
    assert problem_of(client.post("/datasets", json=[]))["status"] == 422
    assert (
        problem_of(client.post("/datasets", content="{", headers={"content-type": "application/json"}))["status"] == 400
    )
    assert problem_of(client.post("/datasets", content="x", headers={"content-type": "text/plain"}))["status"] == 415


def test_settings_are_closed_by_default() -> None:
    assert not Settings(ecif_home=Path("x")).ecif_private_sources
