"""How fast a whole installation takes data in: embeddings and small images, against reading the same bytes."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import text

from benchmarks import memory
from benchmarks.measuring import Resident
from benchmarks.sections import Json, Say, Size
from standalone.stack import Stack
from store.database import Database
from store.settings import Settings

_SPECIFICATION: dict[str, Any] = {
    "task": "valuation",
    "validation": {"fraction": 0.02},
    "fit": None,
    "influence": {"curvature": "identity"},
    "methods": ["ecif", "clip_score"],
}
_WORKERS = 2
_PIECE = 16 << 20
_PATIENCE = 3600


@dataclass(frozen=True)
class Counts:
    embeddings: int
    width: int
    images: int


_COUNTS = {"full": Counts(1_000_000, 512, 200_000), "toy": Counts(200, 8, 40)}


def run(size: Size, say: Say) -> Json:
    """Ingest, encode and score both through API, PostgreSQL, Redis and workers of their own."""
    return measure(_COUNTS[size], say)


def measure(counts: Counts, say: Say) -> Json:
    """The figures for so many pairs of each kind."""
    made: list[tuple[str, int, Json, Callable[[Path], None]]] = [
        ("embeddings", counts.embeddings, {}, lambda path: memory.write(path, counts.embeddings, counts.width)),
        ("images", counts.images, {"model": {"architecture": "tiny"}}, lambda path: _write_images(path, counts.images)),
    ]
    results: Json = {"workers": _WORKERS, "width": counts.width}
    environment = {"ECIF_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryDirectory(prefix="ecif-bench-") as folder,
        Stack(Path(folder) / "home", workers=_WORKERS, environment=environment) as stack,
    ):
        for name, pairs, more, write in made:
            upload = Path(folder) / ("pairs.zip" if name == "embeddings" else "pairs.tar")
            write(upload)
            one = results[name] = {"pairs": pairs, **_one(stack, upload, _SPECIFICATION | more)}
            upload.unlink()
            say(f"{pairs:,} {name}: ingest {one['ingest_seconds']:.1f} s, {one['read_ratio']:.3f} of reading")
    return results


def _one(stack: Stack, upload: Path, specification: Json) -> Json:
    """Upload a file, wait for its ingest, and do a job on it."""
    read = {"cold": _read_seconds(upload, cold=True), "warm": _read_seconds(upload, cold=False)}
    worker = stack.processes["worker"].pid
    with httpx.Client(base_url=stack.url, timeout=_PATIENCE, trust_env=False) as http, Resident(worker) as resident:
        with upload.open("rb") as content:
            dataset = _json(http.post("/datasets", files={"file": (upload.name, content)}))["id"]
        _wait(http, f"/datasets/{dataset}", {"ready", "failed"})
        job = _json(http.post("/jobs", json=specification | {"dataset": dataset}))["id"]
        _wait(http, f"/jobs/{job}", {"succeeded", "failed"})
    phases: list[Json] = [
        {"phase": phase, "shards": shards, "seconds": end - begin, "peak_mib": resident.peak(begin, end)}
        for phase, shards, begin, end in _phases(stack.database_url, dataset, job)
    ]
    of_dataset = [one for one in phases if one["phase"] in ("index", "ingest", "join", "register")]
    seconds = sum(one["seconds"] for one in of_dataset)
    return {
        "bytes": upload.stat().st_size,
        "read_seconds": read["warm"],
        "read_cold_seconds": read["cold"],
        "ingest_seconds": seconds,
        "read_ratio": read["warm"] / seconds,
        "read_cold_ratio": read["cold"] / seconds,
        "peak_mib": max(one["peak_mib"] for one in phases),
        "phases": phases,
    }


def _phases(url: str, dataset: str, job: str) -> list[tuple[str, int, float, float]]:
    """Phases in their order, their shards, and by the clock when the first began and the last ended."""
    query = text(
        "SELECT phase, count(*), extract(epoch FROM min(started_at)), extract(epoch FROM max(finished_at)) FROM shards "
        "WHERE dataset_id = :dataset OR job_id = :job GROUP BY phase ORDER BY min(id)"
    )
    database = Database.from_settings(Settings(database_url=url))
    try:
        with database.transaction() as session:
            rows = session.execute(query, {"dataset": dataset, "job": job}).all()
    finally:
        database.close()
    return [(phase, shards, float(begin), float(end)) for phase, shards, begin, end in rows]


def _read_seconds(path: Path, *, cold: bool) -> float:
    """Reading a whole file and nothing else; cold: after the system was made to forget it."""
    with path.open("rb", buffering=0) as file:
        if cold:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = bytearray(_PIECE)
        begin = time.perf_counter()
        while file.readinto(buffer):
            pass
        return time.perf_counter() - begin


def _wait(http: httpx.Client, path: str, ends: set[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (seen := _json(http.get(path)))["status"] not in ends:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} is still {seen['status']}")
        time.sleep(0.2)
    if "failed" in seen["status"]:
        raise RuntimeError(str(seen["error"]))


def _json(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise RuntimeError(answer.text)
    content: Json = answer.json()
    return content


def _write_images(path: Path, count: int) -> None:
    """A webdataset of JPEGs, 64 × 64, no two alike."""
    with tarfile.open(path, "w") as tar, ThreadPoolExecutor(os.cpu_count()) as threads:
        for number, image in enumerate(_pictures(threads, count)):
            for suffix, content in (("jpg", image), ("txt", f"picture number {number}".encode())):
                member = tarfile.TarInfo(f"{number:07d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _pictures(threads: ThreadPoolExecutor, count: int) -> Iterator[bytes]:
    for first in range(0, count, 1000):
        yield from threads.map(_picture, range(first, min(first + 1000, count)))


def _picture(seed: int) -> bytes:
    out = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BILINEAR).save(out, "JPEG", quality=80)
    return out.getvalue()
