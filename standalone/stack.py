"""The whole service on this machine, for as long as a block lasts."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from doorbell.bell import celery_application
from migrations.upgrade import upgrade
from standalone import ports, postgres, redis_server, services
from standalone.child import Child, Command, wait_until
from standalone.guard import Guard
from standalone.home import Home
from standalone.supervision import Supervision
from store.settings import Settings

logger = logging.getLogger(__name__)

_STOP_ORDER = ("api", "worker", "fetcher", "sweeper", "redis", "postgres")
_FETCHES_AT_ONCE = 2
_SERVER_SECONDS = 60
_SERVICE_SECONDS = 180
"""A worker's first import of torch from a cold disk takes the better part of a minute."""


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _never() -> bool:
    return False


class Stack:
    """API, worker and sweeper over a PostgreSQL and a Redis: its own, unless `database_url` or `redis_url` names one.
    Blobs lie in `home`, unless `blob_url` says otherwise. `DATABASE_URL` and the like of the environment are not read.

    `port` 0 takes a free one. `workers` is the number of worker processes. `environment` is added to that of the
    children. `say` gets a line for each child that died and is started again. `stop_requested` is called while things
    start, `hurry` while they end. `processes` holds the children by name, in the order in which they started.
    """

    def __init__(
        self,
        home: Path,
        port: int = 0,
        workers: int = 1,
        *,
        database_url: str = "",
        redis_url: str = "",
        blob_url: str = "",
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] = logger.warning,
        stop_requested: Callable[[], bool] = _never,
        hurry: Callable[[], bool] = _never,
    ) -> None:
        self.home = Home(home.expanduser().resolve())
        self.port = port
        self.workers = workers
        self.database_url = database_url
        self.redis_url = redis_url
        self.blob_url = blob_url or self.home.blobs.as_uri()
        self.processes: dict[str, Child] = {}
        self._environment = dict(environment or {})
        self._say = say
        self._stop_requested = stop_requested
        self._hurry = hurry
        self._supervised = False
        self._open = ExitStack()

    @property
    def url(self) -> str:
        return f"http://{ports.HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start everything, and return once it is up.

        Raises:
            StandaloneError: it cannot run here, or a child did not come up. Nothing is left running.
        """
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def _lanes(self) -> dict[str, tuple[int, str]]:
        """By the name of the child: its processes and its lanes."""
        return {"worker": (self.workers, "ingest compute"), "fetcher": (_FETCHES_AT_ONCE, "fetch")}

    def _node(self, name: str) -> str:
        return f"ecif-{name}-{self.port}@localhost"

    def restart(self, name: str) -> None:
        """End one child, start it again, and return once everything is up.

        Raises:
            DidNotStartError: it did not come up again.
        """
        self.processes[name].stop(self._hurry)
        self.processes[name].start()
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Return once the API is ready and the worker takes messages.

        Raises:
            DidNotStartError: one of them ended or took too long; holds the end of its log.
        """
        self._wait(lambda: services.api_is_ready(self.url), "api", _SERVICE_SECONDS)
        for name in self._lanes:
            self._wait(partial(services.worker_is_up, self._celery, self._node(name)), name, _SERVICE_SECONDS)

    def _start(self) -> None:
        self.home = Home.at(self.home.path)
        api_port, postgres_port, redis_port = ports.free_ports(3)
        lock = self._open.enter_context(self.home.locked("serve"))
        if self.port:
            ports.check_free(self.port)
        else:
            self.port = api_port
        self._guard = self._open.enter_context(Guard(keep=(lock,)))
        self._open.callback(self._stop)
        self._start_servers(postgres_port, redis_port)
        upgrade(self.database_url)
        self._start_services()
        self.wait_until_up()
        supervision = Supervision(tuple(self.processes.values()), self._say)
        self._open.callback(supervision.close)
        self._supervised = True

    def _start_servers(self, postgres_port: int, redis_port: int) -> None:
        ours: list[tuple[str, Callable[[Child, str], bool], str]] = []
        if not self.database_url:
            self.database_url = postgres.url_of(self.home, postgres_port)
            self._add(postgres.command(self.home, postgres_port))
            ours.append(("postgres", postgres.answers, self.database_url))
        if not self.redis_url:
            self.redis_url = redis_server.url_of(self.home, redis_port)
            self._add(redis_server.command(self.home, redis_port))
            ours.append(("redis", redis_server.answers, self.redis_url))
        for name, answers, url in ours:
            self._wait(partial(answers, self.processes[name], url), name, _SERVER_SECONDS)
        if "postgres" in self.processes:
            self.database_url = postgres.admit_service(self.home, postgres_port)

    def _start_services(self) -> None:
        addresses = {
            "ECIF_HOME": str(self.home.path),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "BLOB_URL": self.blob_url,
        }
        own = {"PYTHONUNBUFFERED": "1", "ECIF_MAX_MODEL_BYTES": str(_memory_bytes() // 2)}
        environment = own | os.environ | self._environment | addresses
        self._celery = celery_application(Settings(database_url=self.database_url, redis_url=self.redis_url))
        self._open.callback(self._celery.close)
        self._add(services.api(self.home, environment, self.port))
        # What waits for other people's servers has a worker of its own: it never keeps the others from their work.
        for name, (processes, lanes) in self._lanes.items():
            self._add(services.worker(self.home, environment, self._node(name), processes, name, lanes))
        self._add(services.sweeper(self.home, environment))

    def _add(self, command: Command) -> None:
        child = self.processes[command.name] = Child(command, self._guard)
        child.start()

    def _wait(self, up: Callable[[], bool], name: str, seconds: float) -> None:
        # Once there is supervision, a child that is not there at this moment will be.
        wait_until(up, self.processes[name], seconds, may_die=self._supervised, stop_requested=self._stop_requested)

    def _stop(self) -> None:
        for name in _STOP_ORDER:
            if name in self.processes:
                self.processes[name].stop(self._hurry)
