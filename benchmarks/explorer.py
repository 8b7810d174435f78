"""`python -m benchmarks.explorer`: how long the pages of the explorer take on a job of many results.

The rows are loaded as a worker loads them, with scores drawn at random; pages come from a real server, one at a time. A
page is its HTML: pictures come by requests of their own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Final

import httpx
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results import open_server
from benchmarks.results_world import SCORES, World
from migrations.upgrade import upgrade
from standalone import servers
from store import jobs
from store.settings import Settings
from worker.analysis.summary import describe

_ROUNDS: Final = 40


def main() -> None:
    """Load the rows and print the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    console = Console(highlight=False)
    with _served(rows) as (world, job, client):
        table = Table("page", "median ms", "p95 ms", title=f"{rows:,} results, {_ROUNDS} rounds")
        for name, path in _pages(world, job, rows).items():
            taken = []
            for _ in range(_ROUNDS):
                begin = perf_counter()
                client.get(path).raise_for_status()
                taken.append(1000 * (perf_counter() - begin))
            table.add_row(name, f"{median(taken):.0f}", f"{quantiles(taken, n=20)[18]:.0f}")
        console.print(table)


@contextmanager
def _served(rows: int) -> Iterator[tuple[World, str, httpx.Client]]:
    with tempfile.TemporaryDirectory(prefix="ecif-bench-") as name, servers.postgres(Path(name), durable=True) as url:
        upgrade(url)
        settings = Settings(
            ecif_home=Path(name), database_url=url, redis_url="redis://127.0.0.1:1/0", ecif_device="cpu"
        )
        with World.of(settings, rows) as world, open_server(settings) as client:
            job = world.job(rows, seed=0)
            world.load_whole(job)
            described = describe(torch.randn(rows, generator=torch.Generator().manual_seed(0)))
            with world.database.transaction() as session:
                summary = {"scores": dict.fromkeys(SCORES, described), "counts": {"scored": rows}}
                jobs.get(session, job).summary = summary
            yield world, job, client


def _pages(world: World, job: str, rows: int) -> dict[str, str]:
    grid = f"/jobs/{job}/explore"
    deep = world.cursor(job, rows * 9 // 10)
    return {
        "/": "/",
        "grid": grid,
        "grid, nine tenths down": f"{grid}?cursor={deep}",
        "grid by clip_score": f"{grid}?sort=clip_score&order=desc",
        "grid, one bar of the histogram": f"{grid}?sort=clip_score&min_clip_score=0.1&max_clip_score=0.2",
        "grid, a far bar, sorted by rank": f"{grid}?min_clip_score=3",
        "grid, captions that hold 77": f"{grid}?caption=77",
        "a pair": f"{grid}/{rows // 2}",
        "sample": f"{grid}/sample",
        "sample, at its end": f"{grid}/sample?from=1981",
    }


if __name__ == "__main__":
    main()
