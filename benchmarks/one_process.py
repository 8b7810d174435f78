"""The service in one process: its API, and a worker that does everything there is to do and measures every phase."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from fastapi.testclient import TestClient

from benchmarks.measuring import at_rest_mib, peak_mib, reset_peak
from benchmarks.sections import Json
from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from worker import pipeline
from worker.attempts.attempt import Workplace, work_once
from worker.attempts.task import Done, Task
from worker.outputs import Output


@dataclass
class Worked:
    """What a worker has used. at_rest_mib: resident before it began. peak_mib, seconds, processor_seconds: of every
    phase, times summed over its shards; the second is what all threads had, whoever else was busy."""

    at_rest_mib: float
    peak_mib: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)


def work_everything(settings: Settings) -> Worked:
    """Claim and do until nothing is left, in this process. Nothing else may run a phase in it meanwhile."""
    place = Workplace(settings, Database.from_settings(settings), Blobs.from_settings(settings))
    worked = Worked(at_rest_mib())
    run = pipeline.run

    def watched(task: Task) -> Done[Output]:
        reset_peak()
        begin, busy = perf_counter(), process_time()
        try:
            return run(task)
        finally:
            phase = str(task.claim.phase)
            worked.peak_mib[phase] = max(worked.peak_mib.get(phase, 0.0), peak_mib())
            worked.seconds[phase] = worked.seconds.get(phase, 0.0) + perf_counter() - begin
            worked.processor_seconds[phase] = worked.processor_seconds.get(phase, 0.0) + process_time() - busy

    pipeline.run = watched  # what `work_once` calls, by name
    try:
        while work_once(place) is not None:
            pass
    finally:
        pipeline.run = run
        place.database.close()
    return worked


@dataclass(frozen=True)
class Job:
    """One that has succeeded. rows: all results, in their order."""

    id: str
    summary: Json
    rows: list[Json]
    worked: Worked


class OneProcess:
    """A service whose database is there and migrated, and whose blobs lie in `home`."""

    def __init__(self, client: TestClient, settings: Settings) -> None:
        """Not by hand: `one_process` makes it."""
        self._client, self._settings = client, settings

    def dataset(self, name: str, content: bytes) -> str:
        """Upload; it is read with the first job that needs it."""
        return str(self._post("/datasets", files={"file": (name, content)})["id"])

    def model(self, content: bytes, architecture: str | Mapping[str, Any]) -> str:
        """Upload the weights of a model, as .safetensors."""
        said = architecture if isinstance(architecture, str) else json.dumps(architecture)
        return str(
            self._post("/models", files={"file": ("model.safetensors", content)}, data={"architecture": said})["id"]
        )

    def work(self) -> Worked:
        """Do what waits: of uploads their reading."""
        return work_everything(self._settings)

    def job(self, specification: Mapping[str, Any]) -> Job:
        """Submit, do it, read everything.

        Raises:
            RuntimeError: it was refused or failed, with the service's own words.
        """
        self.work()
        job = self._post("/jobs", json=dict(specification))["id"]
        worked = self.work()
        ended = self._client.get(f"/jobs/{job}").json()
        if ended["status"] != "succeeded":
            raise RuntimeError(str(ended["error"]))
        answer = self._client.get(f"/jobs/{job}/export", params={"format": "jsonl"})
        return Job(job, ended["summary"], [json.loads(line) for line in answer.text.splitlines()], worked)

    def _post(self, path: str, **content: Any) -> Json:
        answer = self._client.post(path, **content)
        if not answer.is_success:
            raise RuntimeError(f"POST {path}: {answer.text}")
        body: Json = answer.json()
        return body


@contextmanager
def one_process(database_url: str, home: Path) -> Iterator[OneProcess]:
    """A service over a migrated database; nobody else works for it."""
    settings = Settings(ecif_home=home, database_url=database_url, redis_url="redis://127.0.0.1:1/0", ecif_device="cpu")
    with TestClient(create_app(settings)) as client:
        yield OneProcess(client, settings)
