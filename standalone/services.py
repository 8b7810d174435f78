"""The three processes of the service itself, how many workers there are, and how to tell that they are up."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
from celery import Celery
from kombu.exceptions import OperationalError

from standalone.child import Command
from standalone.home import Home
from standalone.ports import HOST

_PYTHON = (sys.executable, "-m")
# A job survives the loss of its worker, so nobody at a terminal has to wait for a shard of a minute.
_WORKER_GRACE_SECONDS = 10


def api(home: Home, environment: dict[str, str], port: int) -> Command:
    """The HTTP front."""
    options = ("--factory", "--host", HOST, "--port", str(port), "--timeout-graceful-shutdown", "3")
    return Command(
        name="api",
        argv=(*_PYTHON, "uvicorn", "service.app:create_app", *options),
        environment=environment,
        log=home.log("api"),
    )


def worker(home: Home, environment: dict[str, str], node: str, processes: int, name: str, lanes: str) -> Command:
    """A Celery worker for some lanes, known to the broker as `node`."""
    options = ("--pool", "prefork", "--concurrency", str(processes), "--hostname", node, "--loglevel", "INFO")
    # Nothing here asks other workers for anything: the queue of record is PostgreSQL.
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return Command(
        name=name,
        argv=(*_PYTHON, "celery", "-A", "worker.app", "worker", *options, *quiet),
        environment={"ECIF_GRACE_SECONDS": str(_WORKER_GRACE_SECONDS / 2)} | environment | {"ECIF_LANES": lanes},
        log=home.log(name),
        grace_seconds=_WORKER_GRACE_SECONDS,
    )


def sweeper(home: Home, environment: dict[str, str]) -> Command:
    """The process that gives back what fell silent."""
    return Command(
        name="sweeper",
        argv=(*_PYTHON, "worker.sweeper"),
        environment=environment,
        log=home.log("sweeper"),
        grace_seconds=3,
    )


def api_is_ready(url: str) -> bool:
    """Whether `/readyz` says so. Proxies of the environment are not for loopback."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def worker_is_up(application: Celery, node: str) -> bool:
    """Whether the worker of that name takes messages."""
    try:
        return bool(application.control.ping(destination=[node], timeout=0.5))
    except OperationalError:
        return False


def worker_processes(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """`ECIF_WORKERS`, else one for each GPU, else one: on a CPU a single process already uses every core.

    Looks at device files rather than asking torch, whose import takes seconds.

    Raises:
        ValueError: `ECIF_WORKERS` is not a number above 0.
    """
    requested = environment.get("ECIF_WORKERS", "")
    if requested:
        if not requested.isdecimal() or int(requested) == 0:
            raise ValueError(f"ECIF_WORKERS must be a number above 0, not {requested!r}")
        return int(requested)
    wanted = environment.get("ECIF_DEVICE", "auto")
    if wanted not in ("auto", "cuda"):
        return 1
    present = sum(1 for file in devices.glob("nvidia*") if file.name.removeprefix("nvidia").isdecimal())
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
        present = min(present, len(named))
    return max(present, 1)
