"""Passwords of DATABASE_URL and REDIS_URL, and keys of requests, are shown to nobody, least of all when things fail.

The run of `tests/benchmarks/chaos` looks for them in the logs of everything at work.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from store.settings import Settings
from tests.service.serving import in_a_process
from tests.service_fixtures import EmbeddingZip

SECRET = "s3cr3t-0f-the-h0use"
KEY = "ecif_" + "k" * 32


@pytest.fixture
def unreachable(tmp_path: Path) -> Settings:
    """Settings full of secrets; nobody listens at either address."""
    return Settings(
        ecif_home=tmp_path,
        database_url=f"postgresql://ecif:{SECRET}@127.0.0.1:1/ecif",
        redis_url=f"redis://:{SECRET}@127.0.0.1:1/0",
        ecif_sweep_seconds=0.1,
        ecif_device="cpu",
    )


def test_not_in_answers_nor_in_the_log_of_the_api(
    unreachable: Settings, embedding_zip: EmbeddingZip, capfd: pytest.CaptureFixture[str]
) -> None:
    with in_a_process(unreachable) as (url, _), httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": KEY}
        answers = [
            client.get("/readyz"),
            client.get("/jobs", headers=headers),
            client.post("/jobs", json={"task": "misalignment", "dataset": "ds_1"}, headers=headers),
            client.post("/datasets", files={"file": ("x.zip", embedding_zip(4))}, headers=headers),
        ]
    assert [answer.status_code for answer in answers] == [503] * 4
    said = capfd.readouterr()
    everything = said.out + said.err + "".join(answer.text + str(answer.headers) for answer in answers)
    assert "database" in said.out + said.err
    assert SECRET not in everything
    assert KEY not in everything


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        (["worker.sweeper"], "sweep not finished"),
        (["celery", "-A", "worker.app", "worker", "--concurrency", "1", "--loglevel", "DEBUG"], "Cannot connect to"),
        (["service.keys", "list"], "OperationalError"),
        (["migrations"], "OperationalError"),
    ],
)
def test_not_in_what_other_processes_say(
    unreachable: Settings, tmp_path: Path, program: list[str], complaint: str
) -> None:
    log = tmp_path / "log"
    environment = os.environ | {name.upper(): str(value) for name, value in unreachable.model_dump().items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *program], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + 60
        while complaint not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert complaint in said
    assert SECRET not in said
