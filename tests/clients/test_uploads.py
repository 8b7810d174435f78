"""What is uploaded goes once, however often it is interrupted and by whomever it is taken up."""

import hashlib
import io
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ecif_client import ApiError, Client, UsageError
from ecif_client.sources import Source
from store.tables import Upload
from tests.clients.cutting import Cutting
from tests.service.exporting import World
from tests.service_fixtures import EmbeddingZip, ImageZip


@pytest.fixture
def train(tmp_path: Path, embedding_zip: EmbeddingZip, request: pytest.FixtureRequest) -> Path:
    """Some 800 KB, and of each test its own."""
    path = tmp_path / "train.zip"
    path.write_bytes(embedding_zip(1600, width=64, seed=sum(request.node.name.encode())))
    return path


def uploads(world: World) -> int:
    with world.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Upload))


def test_an_upload_that_is_cut_goes_on_where_it_stopped(train: Path, cutting: Callable[..., Cutting]) -> None:
    size = train.stat().st_size
    way = cutting(up=size // 2, connections=2)
    places: list[int] = []
    with Client(way.url) as client:
        dataset = client.upload(train, seen=lambda done, total: places.append(done))
    assert dataset["digest"] == "sha256:" + hashlib.sha256(train.read_bytes()).hexdigest()
    assert places[-1] == size
    assert size < way.passed["up"] < 1.9 * size  # two halves and the whole would be twice its size
    assert places != sorted(places)  # it was cut


def arrived(world: World, file: Path, some: int = 1) -> None:
    """Wait until the server has taken in some bytes of a file that no other upload is as long as."""
    deadline = time.monotonic() + 60
    received = select(func.max(Upload.received)).where(Upload.length == file.stat().st_size, Upload.used_at.is_(None))
    while time.monotonic() < deadline:
        with world.database.transaction() as session:
            if (session.scalar(received) or 0) >= some:
                return
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_a_process_that_was_killed_is_followed_by_another(
    train: Path, client: Client, server: str, world: World
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= total:
            raise KeyboardInterrupt

    with Client(server) as killed, pytest.raises(KeyboardInterrupt):
        killed.upload(train, seen=stop)
    arrived(world, train)
    places: list[int] = []
    dataset = client.upload(train, seen=lambda done, total: places.append(done))
    assert places[0] > 0  # some of it was there
    again: list[int] = []
    assert client.upload(train, seen=lambda done, total: again.append(done))["id"] == dataset["id"]
    assert again == [train.stat().st_size]  # nothing was sent


def test_a_dataset_that_is_gone_or_failed_is_made_anew(train: Path, client: Client, world: World) -> None:
    first = client.upload(train)["id"]
    client.delete_dataset(first)
    second = client.upload(train)["id"]
    assert second != first
    assert client.upload(train)["id"] == second
    train.write_bytes(b"PK\3\4 no zip at all " + train.name.encode())
    third = client.upload(train)["id"]
    world.work()
    assert client.dataset(third)["status"] == "failed"
    assert client.upload(train)["id"] != third


def test_another_name_is_another_dataset_of_the_same_bytes(train: Path, client: Client, world: World) -> None:
    before = uploads(world)
    datasets = {client.upload(train)["id"], client.upload(train, name="other")["id"], client.upload(train)["id"]}
    assert len(datasets) == 2
    assert uploads(world) == before + 2


def test_a_key_of_the_callers_is_for_one_content(train: Path, client: Client) -> None:
    key = f"nightly {train}"
    first = client.upload(train, idempotency_key=key)
    assert client.upload(train, idempotency_key=key)["id"] == first["id"]
    assert client.upload(train)["id"] != first["id"]
    train.write_bytes(b"other content")
    with pytest.raises(ApiError) as refused:
        client.upload(train, idempotency_key=key)
    assert refused.value.code == "idempotency_key_reused"
    with pytest.raises(UsageError, match="printable ASCII"):
        client.upload(train, idempotency_key="schlüssel")


def test_a_folder_is_a_dataset(tmp_path: Path, image_zip: ImageZip, client: Client, world: World) -> None:
    folder = tmp_path / "pictures"
    unpack(image_zip(5), folder)
    (folder / ".hidden").write_text("x")
    (folder / "again").symlink_to(folder)
    dataset = client.upload(folder)
    world.work()
    assert (client.dataset(dataset["id"])["status"], dataset["name"]) == ("ready", "pictures.tar")
    rows = list(client.pairs(dataset["id"]))
    assert [(row["key"], row["error"]) for row in rows] == [(f"images/{n}.png", None) for n in range(5)]


def test_two_files_of_embeddings_are_a_dataset(
    tmp_path: Path, embedding_zip: EmbeddingZip, client: Client, world: World
) -> None:
    unpack(embedding_zip(12), tmp_path)
    files = {"image.npy": tmp_path / "image.npy", "text.npy": tmp_path / "text.npy"}
    dataset = client.upload_files(files, name="twelve")
    world.work()
    assert client.dataset(dataset["id"])["pair_count"] == 12


def test_a_folder_is_the_same_tar_each_time_and_from_any_byte_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / ("deep" * 40)).mkdir(parents=True)
    for name, content in (("b.txt", b"bb" * 700), ("a.txt", b""), ("deep" * 40 + "/naïve.txt", b"x" * 1024)):
        (folder / name).write_bytes(content)
    source = Source.of(folder)
    whole = b"".join(source.chunks(0, source.size))
    assert len(whole) == source.size
    (tmp_path / "folder.tar").write_bytes(whole)
    with tarfile.open(tmp_path / "folder.tar") as tar:
        assert tar.getnames() == ["a.txt", "b.txt", "deep" * 40 + "/naïve.txt"]
        assert tar.extractfile("b.txt").read() == b"bb" * 700
    for start in (0, 1, 511, 512, 513, 2000, source.size - 1):
        assert b"".join(source.chunks(start, source.size)) == whole[start:]
        assert b"".join(source.chunks(start, min(start + 700, source.size))) == whole[start : start + 700]
    (folder / "b.txt").touch()
    assert Source.of(folder).digest() == source.digest()
    (folder / "b.txt").write_bytes(b"b")
    with pytest.raises(UsageError, match="became shorter"):
        source.digest()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file or folder"),
        (lambda path: path.mkdir(), "holds no files"),
        (lambda path: path.touch(), "is empty"),
    ],
)
def test_what_cannot_be_uploaded_is_said(
    tmp_path: Path, client: Client, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "x")
    with pytest.raises(UsageError, match=words):
        client.upload(tmp_path / "x")


def unpack(content: bytes, into: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            archive.extract(name, into)
