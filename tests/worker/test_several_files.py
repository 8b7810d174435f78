"""A dataset by reference that is several files: shards by braces, and everything in a folder of a bucket."""

import errno
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.errors import InvalidError, WorkCancelledError
from store.settings import Settings
from tests.readers.writers import img2dataset_tar, jpeg, stats, webdataset_shard
from tests.service_fixtures import ProblemOf
from tests.worker.conftest import FileServer, Post
from worker.attempts.attempt import Workplace, work_once
from worker.outbound import several
from worker.outbound.bounds import Pace
from worker.outbound.copying import fetch

Captions = Callable[[dict[str, Any]], list[str]]
DoAll = Callable[..., None]


@pytest.fixture
def shards(tmp_path: Path) -> dict[int, bytes]:
    """Twelve webdataset shards of two pairs each, by their numbers."""
    made = {}
    for n in range(12):
        webdataset_shard(tmp_path / "shard.tar", 2 * n, 2)
        made[n] = (tmp_path / "shard.tar").read_bytes()
    return made


@pytest.fixture
def captions(near: Settings) -> Captions:
    """The captions of a dataset, in its order."""

    def ask(dataset: dict[str, Any]) -> list[str]:
        with TestClient(create_app(near)) as client:
            found = client.get(f"/datasets/{dataset['id']}/pairs", params={"limit": 200}).json()["items"]
            images = [client.get(f"/datasets/{dataset['id']}/pairs/{pair['key']}/image") for pair in found[:1]]
            assert all(image.status_code == 200 for image in images)
            return [pair["caption"] for pair in found]

    return ask


@pytest.fixture
def phases(near: Settings, database: Database, blobs: Blobs) -> DoAll:
    """All the work there is, in small shards."""

    def work(settings: Settings = near) -> None:
        while work_once(Workplace(settings, database, blobs)) is not None:
            pass

    return work


def test_shards_over_http_become_one_dataset(
    server: FileServer, post: Post, captions: Captions, shards: dict[int, bytes]
) -> None:
    made, files, asked, _ = server
    files |= {f"/cc/{n}.tar": content for n, content in shards.items()}
    uri = f"http://127.0.0.1:{made.server_port}/cc/{{0..11}}.tar"
    found = post(uri + "?signature=secret")
    assert (found["status"], found["format"], found["source"]) == ("ready", "webdataset", uri)
    assert (found["name"], found["pair_count"], found["warnings"]) == ("{0..11}.tar", 24, [])
    assert captions(found) == [f"picture {n}" for n in range(24)]
    assert [each["path"] for each in asked] == [f"/cc/{n}.tar?signature=secret" for n in range(12)]
    assert post(uri)["digest"] == found["digest"]


def test_one_file_in_braces_is_fetched_as_it_is(server: FileServer, post: Post, shards: dict[int, bytes]) -> None:
    made, files, _, _ = server
    files["/7.tar"] = shards[7]
    one, other = (post(f"http://127.0.0.1:{made.server_port}/{name}.tar") for name in ("{7..7}", "7"))
    assert one["digest"] == other["digest"]


def test_shards_are_ingested_by_many_workers(
    server: FileServer,
    near: Settings,
    post: Post,
    phases: DoAll,
    captions: Captions,
    shards: dict[int, bytes],
    database: Database,
    blobs: Blobs,
) -> None:
    made, files, _, _ = server
    files |= {f"/{n:05d}.tar": content for n, content in shards.items()}
    small = near.model_copy(update={"ecif_shard_pairs": 2})
    with TestClient(create_app(near)) as client:
        uri = f"http://127.0.0.1:{made.server_port}/{{00000..00011}}.tar"
        dataset = client.post("/datasets", json={"uri": uri}).json()
        waiting = []
        while (left := work_once(Workplace(small, database, blobs))) is not None:
            waiting.append(left)
        found = client.get(f"/datasets/{dataset['id']}").json()
    assert max(opened.total() for opened in waiting) >= 5
    assert (found["pair_count"], captions(found)) == (24, [f"picture {n}" for n in range(24)])


def test_parquet_files_by_braces(server: FileServer, post: Post, captions: Captions) -> None:
    made, files, _, _ = server
    for part in range(3):
        rows = [{"image": {"bytes": jpeg(n), "path": None}, "text": f"row {n}"} for n in (2 * part, 2 * part + 1)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        files[f"/data-{part:04d}.parquet"] = sink.getvalue().to_pybytes()
    found = post(f"http://127.0.0.1:{made.server_port}/data-{{0000..0002}}.parquet")
    assert (found["format"], captions(found)) == ("parquet", [f"row {n}" for n in range(6)])


def test_a_shard_that_breaks_off_is_taken_up(
    server: FileServer, post: Post, shards: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.outbound.web._PAUSE_SECONDS", 0.01)
    made, files, asked, cut = server
    files |= {f"/{n}.tar": shards[n] for n in range(3)}
    cut += [True, True]
    assert post(f"http://127.0.0.1:{made.server_port}/{{0..2}}.tar")["pair_count"] == 6
    assert len(asked) == 5


def test_a_missing_shard_is_named_and_nothing_is_left(
    server: FileServer, post: Post, shards: dict[int, bytes], near: Settings, blobs: Blobs
) -> None:
    made, files, _, _ = server
    files |= {f"/{n}.tar": shards[n] for n in (0, 1, 3)}
    found = post(f"http://127.0.0.1:{made.server_port}/{{0..3}}.tar?signature=secret")
    assert (found["status"], found["error"]["code"], found["error"]["param"]) == ("failed", "fetch_refused", "uri")
    assert found["error"]["message"].startswith(f"http://127.0.0.1:{made.server_port}/2.tar: the server answers 404")
    assert (found["pair_count"], list(blobs.list("datasets"))) == (0, [])
    assert not list((near.ecif_home / "blobs" / ".staging").iterdir())


@pytest.mark.parametrize(
    ("content", "code"), [({"/1.tar": b""}, "empty_file"), ({"/1.tar": bytes(40_000)}, "too_large")]
)
def test_an_empty_or_too_large_one_is_named(
    server: FileServer,
    near: Settings,
    phases: DoAll,
    shards: dict[int, bytes],
    content: dict[str, bytes],
    code: str,
) -> None:
    made, files, _, _ = server
    files |= {"/0.tar": shards[0], "/2.tar": shards[2]} | content
    bounded = near.model_copy(update={"ecif_max_upload_bytes": 41_000})
    with TestClient(create_app(bounded)) as client:
        uri = f"http://127.0.0.1:{made.server_port}/{{0..2}}.tar"
        dataset = client.post("/datasets", json={"uri": uri}).json()
        phases(bounded)
        found = client.get(f"/datasets/{dataset['id']}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", code)
    assert found["error"]["message"].startswith(f"http://127.0.0.1:{made.server_port}/1.tar: ")


def test_each_address_is_checked(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, files, asked, _ = server
    files["/x"] = b"content"
    really = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **how: Any) -> Any:
        address = {"a.example.org": "127.0.0.1", "b.example.org": "169.254.169.254"}.get(host, host)
        return really(address, *rest, **how)

    monkeypatch.setattr("worker.outbound.addresses.socket.getaddrinfo", resolve)
    monkeypatch.setattr("worker.outbound.addresses.is_public", lambda address: not address.is_link_local)
    with pytest.raises(InvalidError, match=rf"http://b\.example\.org:{made.server_port}/x: .*public"):
        copy(f"http://{{a,b}}.example.org:{made.server_port}/x", tmp_path / "x", private_too=False)
    assert [each["Host"] for each in asked] == [f"a.example.org:{made.server_port}"]


def test_the_folder_of_img2dataset(s3_bucket: Any, post: Post, captions: Captions, tmp_path: Path) -> None:
    for shard in range(3):
        img2dataset_tar(tmp_path / f"{shard:05d}.tar", range(2 * shard, 2 * shard + 2))
        stats(tmp_path / f"{shard:05d}_stats.json")
        pq.write_table(pa.table({"key": ["a"]}), tmp_path / f"{shard:05d}.parquet")
    for path in sorted(tmp_path.glob("0*")):
        s3_bucket.put_object(Bucket="pairs", Key=f"sets/cc3m/{path.name}", Body=path.read_bytes())
    s3_bucket.put_object(Bucket="pairs", Key="sets/cc3m/", Body=b"")
    s3_bucket.put_object(Bucket="pairs", Key="sets/cc3m2/00009.tar", Body=b"another set")
    found = post("s3://pairs/sets/cc3m/")
    assert (found["status"], found["format"], found["source"]) == ("ready", "webdataset", "s3://pairs/sets/cc3m/")
    assert (found["name"], captions(found)) == ("cc3m", [f"picture {n}" for n in range(6)])
    by_braces = post("s3://pairs/sets/cc3m/{00000..00002}.tar")
    assert captions(by_braces) == captions(found)
    gone = post("s3://pairs/sets/cc3m/{00001..00004}.tar")
    assert gone["error"]["message"].startswith("s3://pairs/sets/cc3m/00003.tar: ")


def test_an_image_folder_in_a_bucket(s3_bucket: Any, post: Post, near: Settings) -> None:
    for n in range(40):
        label = "tabby cat" if n % 2 else "dog"
        s3_bucket.put_object(Bucket="pairs", Key=f"animals/train/{label}/{n:02d}.jpg", Body=jpeg(n))
    for key in ("animals/train/dog/", "animals/_SUCCESS"):
        s3_bucket.put_object(Bucket="pairs", Key=key, Body=b"")
    found = post("s3://pairs/animals/")
    assert (found["status"], found["format"], found["pair_count"]) == ("ready", "imagefolder", 40)
    assert found["summary"]["labels"] == {"dog": 20, "tabby cat": 20}
    with TestClient(create_app(near)) as client:
        keys = [pair["key"] for pair in client.get(f"/datasets/{found['id']}/pairs").json()["items"]]
        image = client.get(f"/datasets/{found['id']}/pairs/train%2Fdog%2F06.jpg/image").content
    assert keys == sorted(keys)
    assert (keys[0], image) == ("train/dog/00.jpg", jpeg(6))
    parts = post("s3://pairs/animals/train/{dog,tabby%20cat}/")
    assert parts["summary"]["labels"] == found["summary"]["labels"]


def test_progress_counts_all_files(s3_bucket: Any, tmp_path: Path) -> None:
    for n in range(3):
        s3_bucket.put_object(Bucket="pairs", Key=f"x/{n}", Body=bytes(3 << 20))
    told = []
    copy("s3://pairs/x/{0..2}", tmp_path / "x", progress=lambda *at: told.append(at))
    begun = next(n for n, at in enumerate(told) if at[1])
    assert told[begun:] == sorted(told[begun:])
    assert told[-1] == (9, 9)
    before = len(told)
    with pytest.raises(InvalidError, match="s3://pairs/x/1: there is room for"):
        copy("s3://pairs/x/", tmp_path / "x", most=5 << 20, progress=lambda *at: told.append(at))
    assert set(told[before:]) == {(0, None)}  # nothing was read to find that out


def test_a_hostile_name_is_refused(s3_bucket: Any, post: Post) -> None:
    cases = {
        "../../etc/passwd": r"\.\.",
        "/etc/passwd": "empty path segment",
        "..\\..\\etc": "elsewhere",
        "a\0b": "invalid path",
    }
    for n, (name, says) in enumerate(cases.items()):
        s3_bucket.put_object(Bucket="pairs", Key=f"{n}/0.txt", Body=b"0")
        s3_bucket.put_object(Bucket="pairs", Key=f"{n}/{name}", Body=b"1")
        found = post(f"s3://pairs/{n}/")
        assert found["status"] == "failed"
        assert re.search(says, found["error"]["message"]), name


def test_a_folder_that_is_none(s3_bucket: Any, post: Post) -> None:
    s3_bucket.put_object(Bucket="pairs", Key="x/y/" + "z" * 1000, Body=b"0")
    cases = {
        "s3://pairs/none/": "s3://pairs/none/: bucket pairs holds nothing",
        "s3://absent/x/": "s3://absent/x/: bucket absent",
        "s3://pairs/{x/,x/y/}": "comes twice",
    }
    for uri, says in cases.items():
        assert says in post(uri)["error"]["message"]


def test_a_folder_has_its_bound(s3_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "MOST_OBJECTS", 2)
    for name in ("a/0", "a/1", "b/0"):
        s3_bucket.put_object(Bucket="pairs", Key=f"x/{name}", Body=b"0")
    copy("s3://pairs/x/a/", tmp_path / "x")
    for uri in ("s3://pairs/x/", "s3://pairs/x/{a,b}/"):
        with pytest.raises(InvalidError, match="more than 2 objects"):
            copy(uri, tmp_path / "x")


def test_what_breaks_off_too_often_is_named_for_the_next_attempt(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.outbound.web._TRIES", 1)
    made, files, _, cut = server
    files |= {"/0": b"00", "/1": b"11"}
    cut += [True]
    with pytest.raises(several.BrokenOffError, match=r"/0: RemoteProtocolError"):
        copy(f"http://127.0.0.1:{made.server_port}/{{0..1}}", tmp_path / "x")


def test_a_full_disk_is_no_fault_of_the_dataset(server: FileServer) -> None:
    made, files, _, _ = server
    files |= {"/0": bytes(1 << 20), "/1": b"11"}
    with pytest.raises(OSError, match="space") as full:
        copy(f"http://127.0.0.1:{made.server_port}/{{0..1}}", Path("/dev/full"))
    assert full.value.errno == errno.ENOSPC


def test_it_stops_when_it_is_told_to(s3_bucket: Any, tmp_path: Path) -> None:
    for n in range(3):
        s3_bucket.put_object(Bucket="pairs", Key=f"x/{n}", Body=b"0")

    def progress(done: int, total: int | None) -> None:
        if total is not None:
            raise WorkCancelledError

    with pytest.raises(WorkCancelledError):
        copy("s3://pairs/x/", tmp_path / "x", progress=progress)


def test_the_service_refuses_at_once(client: TestClient, problem_of: ProblemOf) -> None:
    for uri, code in (("s3://pairs/{0..9999999999}.tar", "too_many_files"), ("https://h/x/{a,b}/", "invalid_uri")):
        problem = problem_of(client.post("/datasets", json={"uri": uri}))
        assert (problem["status"], problem["code"]) == (422, code)
        assert problem["errors"][0]["loc"][-1] == "uri"


def copy(
    uri: str,
    into: Path,
    *,
    most: int = 1 << 30,
    private_too: bool = True,
    progress: Callable[..., None] = lambda *_: None,
) -> Any:
    return fetch(uri, into, most=most, pace=Pace(60, 0), private_too=private_too, progress=progress, several=True)
