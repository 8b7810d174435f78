"""How much memory a worker needs as data grow: the peak of a fresh process that does a whole job, for several sizes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from benchmarks.sections import Json, Say, Size
from migrations.upgrade import upgrade
from service.app import create_app
from standalone import servers
from store.settings import Settings

_SPECIFICATION: dict[str, Any] = {
    "task": "valuation",
    "validation": {"fraction": 0.02},
    "fit": None,
    "influence": {"curvature": "identity"},  # conjugate gradients need memory for weights, not for pairs, and hours
    "methods": ["ecif", "clip_score", "pair_loss"],
}


def run(size: Size, say: Say) -> Json:
    """Upload and submit through the API; ingest, plan, curvature, score, rank and load in a process of their own."""
    counts, width = ((10_000, 30_000, 100_000, 300_000), 512) if size == "full" else ((60,), 8)
    sizes = []
    with tempfile.TemporaryDirectory(prefix="ecif-bench-") as folder, servers.postgres(Path(folder)) as url:
        upgrade(url)
        for count in counts:
            sizes.append(_measure(Path(folder), url, count, width))
            say(f"{count:,} pairs: peak {sizes[-1]['peak_mib']:.0f} MiB")
    peaks = [one["peak_mib"] for one in sizes]
    return {"width": width, "specification": _SPECIFICATION, "sizes": sizes, "growth": max(peaks) / peaks[0] - 1}


def _measure(folder: Path, url: str, count: int, width: int) -> Json:
    with _settings(folder, url) as settings:
        archive = folder / "pairs.zip"
        write(archive, count, width)
        with TestClient(create_app(settings)) as client, archive.open("rb") as content:
            form = {"spec": json.dumps(_SPECIFICATION)}
            answer = client.post("/jobs", data=form, files={"dataset": ("pairs.zip", content)})
            if answer.status_code != 202:
                raise RuntimeError(answer.text)
            job = answer.json()["id"]
        archive.unlink()
        phases = _work(settings)
        with TestClient(create_app(settings)) as client:
            ended = client.get(f"/jobs/{job}").json()
            client.delete(f"/jobs/{job}")
            client.delete(f"/datasets/{ended['spec']['dataset']}")
    if ended["status"] != "succeeded":
        raise RuntimeError(str(ended["error"]))
    return {"pairs": count, "results": ended["summary"]["counts"], **phases}


@contextmanager
def _settings(folder: Path, url: str) -> Iterator[Settings]:
    """A blob folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        yield Settings(ecif_home=Path(home), database_url=url, redis_url="redis://127.0.0.1:1/0", ecif_device="cpu")


def write(path: Path, count: int, width: int) -> None:
    """Random embeddings, a block at a time: this process is not the one that is measured, and still need not grow."""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("image.npy", "text.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                np.lib.format.write_array_header_1_0(member, header)
                for start in range(0, count, 4096):
                    rows = min(4096, count - start)
                    member.write(generator.standard_normal((rows, width), dtype=np.float32).tobytes())


def _work(settings: Settings) -> Json:
    given = settings.model_dump_json(include={"ecif_home", "database_url", "redis_url", "blob_url", "ecif_device"})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_worker"], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    peaks: Json = json.loads(done.stdout.splitlines()[-1])
    return peaks
