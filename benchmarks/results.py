"""Results at the size of a large job: how fast they are written, read page by page, and deleted.

Everything is real but the scores: PostgreSQL keeps its promises to the disk, shards of the step `load` are claimed and
done as a worker does them, pages come from the HTTP server. The ranked columns that `load` reads are drawn at random.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

import httpx
import torch

from benchmarks.results_world import BareCopy, World
from benchmarks.sections import Json, Say, Size
from migrations.upgrade import upgrade
from standalone import servers
from standalone.ports import free_ports
from store.settings import Settings

ROWS = {"full": 10_000_000, "toy": 3_000}
_READERS = 50
_LOAD = "from benchmarks.results_world import load_all; load_all()"


def run(size: Size, say: Say) -> Json:
    """Load a job and a bare table by turns; read first and deep pages; read and walk while others load; delete."""
    rows = ROWS[size]
    with tempfile.TemporaryDirectory(prefix="ecif-bench-") as name, servers.postgres(Path(name), durable=True) as url:
        upgrade(url)
        settings = Settings(
            ecif_home=Path(name), database_url=url, redis_url="redis://127.0.0.1:1/0", ecif_device="cpu"
        )
        with World.of(settings, rows) as world, open_server(settings) as client:
            big = world.job(rows, seed=0)
            copied = _load(world, big, rows, say)
            pages = _pages(world, client, big, rows, say)
            small = max(rows // 50, 2_000)
            walked = world.job(small, seed=1)
            world.load_whole(walked)
            readers = _readers(world, client, settings, big, rows, small)
            say(f"{_READERS} readers during a load: p95 {readers['p95_ms']:.0f} ms")
            walk = _walk(world, client, settings, walked, small)
            say(f"a walk of {small:,} rows: {walk['gaps']} gaps or repeats")
            begin = perf_counter()
            client.delete(f"/jobs/{big}").raise_for_status()
            delete = perf_counter() - begin
            say(f"deleting {rows:,} rows answers in {delete:.3f} s")
    return {"rows": rows, "load": copied, "pages": pages, "readers": readers, "walk": walk, "delete_s": delete}


def _load(world: World, job: str, rows: int, say: Say) -> Json:
    seconds, bare = 0.0, BareCopy(world)
    done = bare_rows = 0
    while (last := world.load_once(job)) is not None:
        seconds += last.seconds
        bare.load(last.first, last.count)
        done, bare_rows = done + last.count, bare_rows + last.count
        if done % 1_000_000 == 0:
            say(f"{done:,} rows: {done / seconds:,.0f} a second, bare {bare_rows / bare.seconds:,.0f}")
    assert done == rows
    bare.drop()
    return {
        "rows_per_second": done / seconds,
        "bare_rows_per_second": done / bare.seconds,
        "ratio": bare.seconds / seconds,
    }


def _pages(world: World, client: httpx.Client, job: str, rows: int, say: Say) -> Json:
    deep = world.cursor(job, rows * 9 // 10)
    first_page = client.get(f"/jobs/{job}/results", params={"limit": 100}).json()
    assert first_page["next_cursor"] == world.cursor(job, 100), "the service would have made another cursor"
    times: dict[str, list[float]] = {"first": [], "deep": []}
    for _ in range(40):
        for kind, params in (("first", {}), ("deep", {"cursor": deep})):
            begin = perf_counter()
            answer = client.get(f"/jobs/{job}/results", params={"limit": 100, **params}).raise_for_status()
            times[kind].append(1000 * (perf_counter() - begin))
            expected = 1 if kind == "first" else rows * 9 // 10 + 1
            assert answer.json()["items"][0]["rank"] == expected
    measured = {f"{kind}_ms": median(some) for kind, some in times.items()}
    measured["ratio"] = measured["deep_ms"] / measured["first_ms"]
    say(f"first page {measured['first_ms']:.1f} ms, at depth {rows * 9 // 10:,} {measured['deep_ms']:.1f} ms")
    return {**measured, "depth": rows * 9 // 10}


def _readers(world: World, client: httpx.Client, settings: Settings, job: str, rows: int, more: int) -> Json:
    taken: list[float] = []
    failed: list[str] = []
    over = threading.Event()

    def read(seed: int) -> None:
        depths = torch.randint(0, rows - 100, (10_000,), generator=torch.Generator().manual_seed(seed)).tolist()
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as own:
            for depth in depths:
                begin = perf_counter()
                try:
                    own.get(
                        f"/jobs/{job}/results", params={"limit": 100, "cursor": world.cursor(job, depth)}
                    ).raise_for_status()
                    taken.append(1000 * (perf_counter() - begin))
                except httpx.HTTPError as error:
                    failed.append(str(error))
                if over.is_set():
                    return

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(_READERS)]
    with _loading(world, settings, more) as loading:
        begin = perf_counter()
        for thread in threads:
            thread.start()
        loading.wait()
        seconds = perf_counter() - begin
        over.set()
        for thread in threads:
            thread.join()
    cuts = quantiles(taken, n=20)
    return {
        "readers": _READERS,
        "requests": len(taken),
        "errors": len(failed),
        "p50_ms": cuts[9],
        "p95_ms": cuts[18],
        "loaded_rows_per_second": more / seconds,
    }


def _walk(world: World, client: httpx.Client, settings: Settings, job: str, rows: int) -> Json:
    expected, gaps, cursor = 1, 0, None
    with _loading(world, settings, 3 * rows) as loading:
        begin = perf_counter()
        while True:
            params: dict[str, Any] = {"limit": 1000} | ({"cursor": cursor} if cursor else {})
            page = client.get(f"/jobs/{job}/results", params=params).raise_for_status().json()
            for item in page["items"]:
                gaps += item["rank"] != expected
                expected += 1
            cursor = page["next_cursor"]
            if cursor is None:
                break
        seconds = perf_counter() - begin
        during = loading.poll() is None
        loading.wait()
    return {"rows": expected - 1, "gaps": gaps + abs(rows - expected + 1), "seconds": seconds, "load_outlasted": during}


@contextmanager
def _loading(world: World, settings: Settings, rows: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process loads a job of so many rows."""
    world.job(rows, seed=2)
    command = [sys.executable, "-c", _LOAD]
    with subprocess.Popen(command, env=_environment(settings), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it begins: everything is imported
            yield process
        finally:
            process.terminate()


@contextmanager
def open_server(settings: Settings) -> Iterator[httpx.Client]:
    """The API as a process of its own, until the block ends."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--log-level", "error"]
    with subprocess.Popen([*command, "--port", str(port)], env=_environment(settings)) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                for _ in range(300):
                    with suppress(httpx.TransportError):
                        client.get("/readyz")
                        break
                    sleep(0.1)
                yield client
        finally:
            process.terminate()


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | {name.upper(): str(value) for name, value in settings.model_dump().items()}
