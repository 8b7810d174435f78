"""Every kind of hostile upload through the real doors, taken in by a real worker.

Whatever comes: no 5xx, a reason that names the culprit, nothing written outside its place or left behind, little
memory, and the processes live on. What is to be turned away is listed in the design (reliability.md); each line of
that list has its cases in a module beside this one. How readers turn such things away in detail:
`tests/readers`. Exports that are safe to open: `tests/service/test_exports.py`.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest

from tests.hostile import archives, arrays, images, tables
from tests.hostile.case import Case, beside_a_good_one, embeddings, npy
from tests.hostile.conftest import World
from tests.service_fixtures import Answer, picture

CASES = archives.CASES + images.CASES + tables.CASES + arrays.CASES
MOST_MIB = {"api": 64, "worker": 200}
GOOD = embeddings(npy(np.eye(4, 3, dtype=np.float32)))


@pytest.fixture(scope="module", autouse=True)
def warm(world: World) -> None:
    """What is imported once is not what an upload costs."""
    for content in (GOOD, beside_a_good_one(picture(1)), tables.PARQUET):
        assert ended(world, world.client.post("/datasets", files={"file": ("data", content)}))["status"] == "ready"


@pytest.fixture
def watched(world: World) -> Iterator[None]:
    """Around whatever is sent: the files before and after are the same, memory was bounded, good uploads go on."""
    before = world.files()
    world.api.begin()
    world.worker.begin()
    yield
    assert world.api.mib() < MOST_MIB["api"]
    assert world.worker.mib() < MOST_MIB["worker"]
    good = ended(world, world.client.post("/datasets", files={"file": ("good.zip", GOOD)}))
    assert (good["status"], good["pair_count"]) == ("ready", 4)
    world.client.delete(f"/datasets/{good['id']}")
    assert world.files() == before


def ended(world: World, answer: Answer) -> dict[str, Any]:
    """The dataset or model that an upload became."""
    assert answer.status_code == 201, answer.text
    world.work()
    return world.client.get(answer.headers["location"]).json()


def rejections(world: World, dataset: dict[str, Any]) -> list[str]:
    pairs = world.client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]
    return [pair["error"] for pair in pairs]


def problem_text(answer: Answer) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    return f"{body['detail']} {body.get('errors')}"


def by_tus(world: World, content: bytes, filename: str) -> Answer:
    metadata = "filename " + base64.b64encode(filename.encode()).decode()
    headers = {"upload-length": str(len(content)), "upload-metadata": metadata}
    place = world.client.post("/uploads", headers=headers).headers["location"]
    sent = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
    assert world.client.patch(place, content=content, headers=sent).status_code == 204
    return world.client.post("/datasets", json={"upload": place.removeprefix("/uploads/")})


def check(world: World, case: Case, answer: Answer) -> None:
    if case.ends == "refused":
        text = problem_text(answer)
        assert all(word in text for word in case.names), text
        return
    before = {name for name in world.files() if f"/{answer.json()['id']}/" not in name}
    made = ended(world, answer)
    assert {name for name in world.files() if f"/{made['id']}/" not in name} == before
    if case.ends == "failed":
        assert made["status"] == "failed", made
        reasons = [made["error"]["message"]]
    else:
        assert made["status"] == ("ready" if case.kept else "failed"), made["error"]
        assert made["pair_count"] == case.kept
        reasons = rejections(world, made)
        assert len(reasons) == (case.ends == "rejected") or not case.kept
    assert not case.names or any(all(word in reason for word in case.names) for reason in reasons), reasons
    assert world.client.delete(answer.headers["location"]).status_code == 204


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile(world: World, watched: None, case: Case) -> None:
    files = {"file": (case.filename, case.make(str(world.aim)))}
    check(world, case, world.client.post(f"/{case.door}", files=files, data=case.fields))


BY_TUS = ("a zip whose member is called dot dot", "a bomb of gzip", "npy: pickled objects", "a zip with a link")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in BY_TUS], ids=lambda case: case.name)
def test_hostile_in_pieces(world: World, watched: None, case: Case) -> None:
    check(world, case, by_tus(world, case.make(str(world.aim)), "../../evil.zip"))


BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}


def part(disposition: bytes, content: bytes = b"evil") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + content + b"\r\n"


FILE, END = b'name="file"; filename="f"', b"--x--\r\n"


def endless() -> Iterator[bytes]:
    yield b"--x\r\nContent-Disposition: form-data; " + FILE + b"\r\n\r\n"
    for _ in range(301):
        yield bytes(1 << 20)


BODIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "larger than allowed, and does not say so": ({"content": endless}, ("314,572,800 bytes",)),
    "cut short": ({"content": part(FILE)}, ("closing boundary",)),
    "of no parts": ({"content": END}, ("'file' is missing",)),
    "with a field nobody knows": ({"content": part(b'name="../../evil"') + END}, ("../../evil",)),
    "with two files": ({"content": part(FILE) * 2 + END}, ("file", "twice")),
    "with a file as text": ({"content": part(b'name="file"') + END}, ("file", "must be a file")),
    "with a field of two megabytes": ({"content": part(b'name="name"', b"x" * (2 << 20)) + END}, ("'name'", "over")),
    "with a header of two megabytes": ({"content": part(b'name="' + b"x" * (2 << 20)) + END}, ("",)),
    "with a name that is not UTF-8": ({"content": part(b'name="name"', b"\xff") + END}, ("'name'", "UTF-8")),
    "with an empty file": ({"content": part(FILE, b"") + END}, ("'file'", "empty")),
    "with a long name": ({"content": part(b'name="name"', b"x" * 201) + part(FILE) + END}, ("200",)),
    "with a template of no label": (
        {"content": part(b'name="caption_template"', b"x") + part(FILE) + END},
        ("caption_template", "label"),
    ),
    "without a boundary": ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, ("boundary",)),
    "of no known type": ({"content": b"", "headers": {"content-type": "text/evil"}}, ("multipart",)),
    **{
        f"of JSON {name}": ({"content": content, "headers": {"content-type": "application/json"}}, words)
        for name, content, words in (
            ("nested without end", b"[" * 100_000, ("",)),
            ("with NaN", b'{"uri": NaN}', ("NaN",)),
            ("with a key twice", b'{"uri": "https://a/b", "uri": "https://c/d"}', ("uri",)),
            ("of two megabytes", b" " * (2 << 20), ("1,048,576",)),
            ("with half of a surrogate pair", b'{"upload": "\\ud800"}', ("",)),
            ("with a field nobody knows", b'{"path": "/etc/passwd"}', ("path",)),
        )
    },
    **{
        f"that refers to {uri}": ({"json": {"uri": uri}}, ("uri",))
        for uri in (
            "file:///etc/passwd",
            "/etc/passwd",
            "http://169.254.169.254/latest/meta-data",
            "ftp://host/file",
            "https://user:password@host/file",
            "https://host/" + "x" * 5000,
            "gopher://host/1",
            "s3://../../evil",
        )
    },
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body(world: World, watched: None, name: str) -> None:
    how, words = BODIES[name]
    how = {name: value() if callable(value) else value for name, value in how.items()}
    if "content" in how:
        how["headers"] = BOUNDARY | how.get("headers", {})
    text = problem_text(world.client.post("/datasets", **how))
    assert all(word in text for word in words), text


def test_a_body_that_says_how_large_it_is_is_not_waited_for(world: World, watched: None) -> None:
    connection = HTTPConnection(world.client.base_url.netloc.decode(), timeout=20)
    connection.putrequest("POST", "/datasets")
    for name, value in (BOUNDARY | {"content-length": str(1 << 40)}).items():
        connection.putheader(name, value)
    connection.endheaders()
    with closing(connection):
        answer = connection.getresponse()
        assert (answer.status, b"314,572,800 bytes" in answer.read()) == (413, True)


PRIVATE = (
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "[::1]",
    "[::ffff:10.0.0.1]",
    "[fd00::1]",
    "0.0.0.0",  # noqa: S104  an address that is asked for, not bound
)


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_that_is_not_public(world: World, watched: None, host: str) -> None:
    made = ended(world, world.client.post("/datasets", json={"uri": f"https://{host}/evil.zip"}))
    assert made["status"] == "failed"
    assert "public" in made["error"]["message"]
    world.client.delete(f"/datasets/{made['id']}")


PIECES = {
    "announced as larger than allowed": ({"upload-length": str(1 << 50)}, b"", ("314,572,800",)),
    "of a negative length": ({"upload-length": "-1"}, b"", ("Length",)),
    "with metadata that are none": ({"upload-length": "4", "upload-metadata": "filename ///"}, b"", ("metadata",)),
    "longer than announced": ({"upload-length": "4"}, b"12345", ("4 bytes",)),
}


@pytest.mark.parametrize("name", PIECES)
def test_pieces(world: World, watched: None, name: str) -> None:
    headers, content, words = PIECES[name]
    answer = world.client.post("/uploads", headers=headers)
    if answer.status_code == 201:
        place = answer.headers["location"]
        sent = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        answer = world.client.patch(place, content=content, headers=sent)
        world.client.delete(place)
    text = problem_text(answer)
    assert all(word.lower() in text.lower() for word in words), text


@pytest.mark.parametrize(
    "filename", ["../../evil.zip", "/etc/evil.zip", "C:\\evil.zip", "a\0b.zip", "é" * 2000 + ".zip"]
)
def test_a_filename_is_only_text(world: World, watched: None, filename: str) -> None:
    made = ended(world, world.client.post("/datasets", files={"file": (filename, GOOD)}))
    assert made["status"] == "ready"
    assert hashlib.sha256(GOOD).hexdigest() in made["digest"]
    world.client.delete(f"/datasets/{made['id']}")


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
