"""The three processes of the service itself, and how to tell that they are up."""

import sys

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
