"""Jobs that stand right before `load`: all that earlier phases leave is there, and the scores are drawn at random."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save
from sqlalchemy import insert, select, text

from service.app import create_app
from service.pagination import Cursors
from store import jobs, results, shared_secrets
from store.blobs import Blobs
from store.database import Database
from store.nouns import new_id
from store.phases import Phase
from store.results import COLUMNS
from store.settings import Settings, get_settings
from store.states import JobStatus, ShardState
from store.tables import Dataset, Job, Shard
from worker.analysis import load
from worker.analysis.tensors import put_tensors
from worker.attempts.attempt import Workplace, work_once
from worker.outputs import PlanOutput, RankOutput
from worker.pipeline import Planning

SCORES: Final = ("influence", "positive_influence", "negative_influence", "self_influence", "clip_score")
_PAIRS = """
INSERT INTO pairs (dataset, position, row, part, key, caption)
SELECT :dataset, n, n, 0, n::text, 'a caption of pair ' || n FROM generate_series(CAST(:first AS bigint), :last) AS n
"""


@dataclass(frozen=True)
class Loaded:
    """One shard: from rank `first` + 1 on, `count` rows."""

    first: int
    count: int
    seconds: float


@dataclass
class World:
    """A service whose one dataset has many pairs, and one real job on it that the others are copies of."""

    settings: Settings
    database: Database
    blobs: Blobs
    model: str
    cursors: Cursors

    @classmethod
    @contextmanager
    def of(cls, settings: Settings, rows: int) -> Iterator[World]:
        database, blobs = Database.from_settings(settings), Blobs.from_settings(settings)
        vectors = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
        with TestClient(create_app(settings)) as client:
            content = io.BytesIO(save({"image": vectors, "text": vectors.flip(1).contiguous()}))
            dataset = client.post("/datasets", files={"file": ("x.safetensors", content)}).json()["id"]
            spec = {"task": "valuation", "dataset": dataset, "validation": {"fraction": 0.5}, "fit": None}
            job = client.post("/jobs", json=spec).json()["id"]
        _work(settings, database, blobs)
        with database.transaction() as session:
            number = session.execute(select(Dataset.number).where(Dataset.id == dataset)).scalar_one()
            session.execute(text(_PAIRS), {"dataset": number, "first": 40, "last": rows - 1})
            key = shared_secrets.cursor_key(session)
        try:
            yield cls(settings, database, blobs, job, Cursors(lambda: key))
        finally:
            database.close()

    def job(self, rows: int, *, seed: int) -> str:
        """A job of so many results, with its shards of `load` waiting."""
        generator = torch.Generator().manual_seed(seed)
        columns = {name: torch.randn(rows, dtype=torch.float64, generator=generator) for name in SCORES}
        columns["influence"] = columns["influence"].sort().values
        job_id = new_id("job")
        columns["position"] = torch.randperm(rows, generator=generator)
        blob = put_tensors(self.blobs, f"jobs/{job_id}/ranked.safetensors", columns)
        with self.database.transaction() as session:
            real = session.get_one(Job, self.model)
            copied = ("task", "spec", "code_version", "dataset_id", "dataset_digest")
            job = Job(id=job_id, status=JobStatus.RUNNING, **{name: getattr(real, name) for name in copied})
            session.add(job)
            session.flush()
            outputs = {
                Phase.PLAN: PlanOutput("", rows, rows, 0, 0, 1, None, None),
                Phase.RANK: RankOutput(blob, rows, None, {}),
            }
            for phase, output in outputs.items():
                row = {"job_id": job_id, "phase": phase, "index": 0, "payload": {}, "state": ShardState.DONE}
                session.execute(insert(Shard).values(**row, output=output.as_json(), total=1))
            session.refresh(job)
            results.make_room(session, job, rows, self.settings.ecif_results_apart)
            jobs.open_phase(session, job, Phase.LOAD, load.cut(Planning(session, jobs.owner_of(job), Phase.LOAD)))
        return job_id

    def load_once(self, job: str) -> Loaded | None:
        """Have a worker do the next shard; `None` where all are done."""
        with self.database.transaction() as session:
            waiting = select(Shard).where(Shard.job_id == job, Shard.state == ShardState.QUEUED)
            shard = session.scalars(waiting.order_by(Shard.id).limit(1)).first()
            if shard is None:
                return None
            first, last = shard.payload["first"], shard.payload["last"]
        begin = perf_counter()
        work_once(Workplace(self.settings, self.database, self.blobs))
        return Loaded(first, last - first, perf_counter() - begin)

    def load_whole(self, job: str) -> None:
        while self.load_once(job) is not None:
            pass

    def cursor(self, job: str, rank: int) -> str:
        """What the service makes at the end of a page that ends with this rank."""
        question = {"results": job, "sort": "rank", "order": "asc", "flagged": None, "key": None, "query": None}
        return self.cursors.make(question, [None, rank])


def load_all() -> None:
    """Do all that waits, in a process of its own, which says when it begins."""
    settings = get_settings()
    database = Database.from_settings(settings)
    print("begins", flush=True)
    _work(settings, database, Blobs.from_settings(settings))
    database.close()


def _work(settings: Settings, database: Database, blobs: Blobs) -> None:
    place = Workplace(settings, database, blobs)
    while work_once(place) is not None:
        pass


_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_WHOLE = ("apart", "job", "rank", "position")


class BareCopy:
    """A table with the columns, constraints and indexes of `results`. `seconds`: what its COPYs took, commits too."""

    def __init__(self, world: World) -> None:
        self._engine = world.database.engine
        self._scores = SCORES
        self._random = np.random.default_rng(0)
        self.seconds = 0.0
        with self._engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bare (LIKE results INCLUDING ALL)")

    def load(self, first: int, count: int) -> None:
        """Rows from rank `first` + 1 on; they are made before the clock starts."""
        content = self._encoded(first, count)
        begin = perf_counter()
        connection = self._engine.raw_connection()
        try:
            with connection.driver_connection.cursor() as cursor:  # type: ignore[union-attr]
                named = ", ".join(COLUMNS)
                with cursor.copy(f"COPY bare ({named}) FROM STDIN (FORMAT BINARY)") as copy:
                    for at in range(0, len(content), 1 << 20):
                        copy.write(content[at : at + (1 << 20)])
            connection.commit()
        finally:
            connection.close()
        self.seconds += perf_counter() - begin

    def drop(self) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE bare")

    def _encoded(self, first: int, count: int) -> bytes:
        fields: list[tuple[str, str]] = [("fields", ">i2")]
        for name in COLUMNS:
            fields.append((f"{name} length", ">i4"))
            if name in _WHOLE or name in self._scores:
                fields.append((name, ">i8" if name in _WHOLE else ">f8"))
        rows = np.zeros(count, fields)
        rows["fields"] = len(COLUMNS)
        for name in COLUMNS:
            rows[f"{name} length"] = 8 if name in _WHOLE or name in self._scores else -1
        rows["job"], rows["rank"] = 1, np.arange(first + 1, first + count + 1)
        rows["position"] = self._random.permutation(count) + first
        for name in self._scores:
            rows[name] = self._random.normal(size=count)
        rows["influence"] = np.sort(rows["influence"]) + first
        return _HEADER + rows.tobytes() + _END
