"""Who is there and who is gone, told by locks that the kernel keeps."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient

from store import shards
from store.database import Database
from store.errors import LostLeaseError
from store.phases import Lane
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, Upload
from worker.attempts.follow_up import judge, take_over
from worker.attempts.presence import appear, departed

_PROCESS = """
import sys
from pathlib import Path
from worker.attempts.presence import appear
print(appear(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class Another(NamedTuple):
    process: subprocess.Popen[str]
    name: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


@pytest.fixture
def another(folder: Path) -> Iterator[Another]:
    """Another process that is there; killed at the end at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield Another(process, process.stdout.readline().strip())
        process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_process_is_there_until_it_is_killed(folder: Path, another: Another) -> None:
    mine = appear(folder)
    assert mine.split(":")[1] == str(os.getpid())
    assert list(departed(folder)) == []
    kill(another.process)
    assert [gone.name for gone in departed(folder)] == [another.name]
    assert list(departed(folder)) == []
    assert [file.name for file in folder.iterdir()] == [mine]


def test_whoever_fails_to_bury_a_process_leaves_it_to_the_next(folder: Path, another: Another) -> None:
    kill(another.process)
    with suppress(ConnectionError):
        for _ in departed(folder):
            raise ConnectionError
    assert [gone.name for gone in departed(folder)] == [another.name]


def test_two_appearances_of_one_process_have_two_names(folder: Path) -> None:
    assert appear(folder) != appear(folder)


def test_without_a_folder_to_write_in_a_worker_has_a_name_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert appear(tmp_path / "file" / "workers")
    assert "no lock file" in caplog.text
    assert list(departed(tmp_path / "file" / "workers")) == []


def test_the_shard_of_a_killed_process_waits_again_at_once_and_that_of_a_live_one_does_not(
    folder: Path,
    another: Another,
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    database: Database,
    settings: Settings,
) -> None:
    upload(embedding_zip(4))
    upload(embedding_zip(4))
    mine = appear(folder)
    with database.transaction() as session:
        lost = shards.claim(session, worker=another.name, lease_seconds=3600)
        held = shards.claim(session, worker=mine, lease_seconds=3600)
    assert take_over(folder, database, settings).total() == 0
    kill(another.process)
    assert take_over(folder, database, settings) == {Lane.INGEST: 1}
    with database.transaction() as session:
        again = shards.claim(session, worker=mine, lease_seconds=3600)
        shards.fence(session, held)
    assert (again.shard_id, again.attempt) == (lost.shard_id, lost.attempt + 1)
    with pytest.raises(LostLeaseError), database.transaction() as session:
        shards.complete(session, lost, {}, units=1)


def test_a_process_that_was_killed_for_memory_is_known_by_the_kernels_count(
    folder: Path, another: Another, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "vmstat"
    counts.write_text("nr_free_pages 1\noom_kill 3\n")
    monkeypatch.setattr("worker.attempts.presence._KERNEL_COUNTS", counts)
    (folder / another.name).write_bytes(b"3")
    kill(another.process)
    counts.write_text("nr_free_pages 1\noom_kill 4\n")
    assert [(gone.name, gone.out_of_memory) for gone in departed(folder)] == [(another.name, True)]


def test_what_is_killed_for_memory_twice_is_told_so(
    folder: Path,
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    database: Database,
    settings: Settings,
) -> None:
    dataset = upload(embedding_zip(4))["id"]
    for _ in range(2):
        with database.transaction() as session:
            assert shards.claim(session, worker="gone", lease_seconds=3600)
        with database.transaction() as session:
            taken_back = shards.take_back_from(session, "gone", exhausted=True)
        judge(database, settings, taken_back)
    failed = client.get(f"/datasets/{dataset}").json()
    assert failed["error"]["code"] == "out_of_memory"
    assert "index shard 0 ran out of memory 2 times" in failed["error"]["message"]
