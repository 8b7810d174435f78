"""Run many settings: one process for each core, each with a service of its own over one PostgreSQL."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.detection.cells import Cell, Model, Scale
from benchmarks.detection.costs import costs
from benchmarks.detection.measure import measure
from benchmarks.detection.setting import noisy_pairs
from benchmarks.detection.training import as_file, new_model, train
from benchmarks.one_process import one_process
from benchmarks.sections import Json
from migrations.upgrade import upgrade
from standalone import servers


@dataclass(frozen=True)
class Place:
    """Where a process works: a migrated database of its own, and folders for blobs and pretrained models."""

    database_url: str
    home: Path
    models: Path


class Runner:
    """Measures settings in processes that stay."""

    def __init__(self, pool: ProcessPoolExecutor, scale: Scale) -> None:
        """Not by hand: `runner` makes it."""
        self._pool, self._scale = pool, scale

    def measure(self, cells: Sequence[Cell], until: float = math.inf) -> Iterator[Json]:
        """Each setting's figures, as they come; what is pretrained comes first. After `until`, a time of
        `perf_counter`, none is begun."""
        needed = {(cell.kind, cell.seed) for cell in cells if cell.model != "scratch"}
        for trained in as_completed([self._pool.submit(_pretrain, *each, self._scale) for each in sorted(needed)]):
            trained.result()
        begun = [self._pool.submit(_measure, cell, self._scale) for cell in cells]
        for measured in as_completed(begun):
            if perf_counter() > until:
                for each in begun:
                    each.cancel()
            if not measured.cancelled():
                yield measured.result()

    def costs(self, kind: str, model: Model) -> Json:
        """What every column costs; nothing else is measured meanwhile."""
        if model != "scratch":
            self._pool.submit(_pretrain, kind, 0, self._scale).result()
        return self._pool.submit(_costs, kind, model, self._scale).result()


@contextmanager
def runner(scale: Scale, processes: int | None = None) -> Iterator[Runner]:
    """As many processes as there are cores, or that many; all is gone afterwards."""
    count = processes or os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))  # read when a process begins
    with tempfile.TemporaryDirectory(prefix="ecif-bench-") as folder, servers.postgres(Path(folder)) as url:
        models = Path(folder) / "models"
        models.mkdir()
        pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin, initargs=(url, folder, str(models))
        )
        try:
            yield Runner(pool, scale)
        finally:
            pool.shutdown(cancel_futures=True)


_place: Place | None = None


def place() -> Place:
    """Of this process."""
    assert _place is not None
    return _place


def _begin(server: str, folder: str, models: str) -> None:
    global _place
    logging.disable(logging.WARNING)  # that nobody hears the doorbell: the worker needs none
    name = f"bench_{os.getpid()}"
    with psycopg.connect(make_url(server).set(drivername="postgresql").render_as_string(False), autocommit=True) as on:
        on.execute(f"CREATE DATABASE {name}")
    own = make_url(server).set(drivername="postgresql+psycopg", database=name).render_as_string(False)
    upgrade(own)
    home = Path(folder) / name
    home.mkdir()
    _place = Place(own, home, Path(models))


def checkpoint(kind: str, seed: int) -> Path:
    """The model that was pretrained for it."""
    return place().models / f"{kind}-{seed}.safetensors"


def _pretrain(kind: str, seed: int, scale: Scale) -> None:
    pool = noisy_pairs(Cell(kind, "shuffled", 0.2, "transferred", seed), scale).pool
    model = new_model(scale.architecture, seed)
    params = train(model, pool.images, pool.captions, epochs=scale.pretraining, seed=seed)
    checkpoint(kind, seed).write_bytes(as_file(model, params))


def _measure(cell: Cell, scale: Scale) -> Json:
    with one_process(place().database_url, place().home) as service:
        return measure(cell, scale, service, None if cell.model == "scratch" else checkpoint(cell.kind, cell.seed))


def _costs(kind: str, model: Model, scale: Scale) -> Json:
    with one_process(place().database_url, place().home) as service:
        return costs(kind, model, scale, service, None if model == "scratch" else checkpoint(kind, 0))
