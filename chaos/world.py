"""What chaos is let loose on: the service as `make serve` starts it, its links to both servers in our hands."""

import contextlib
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

from sqlalchemy.engine import make_url

from chaos.link import Link
from standalone import ports, redis_server, servers
from standalone.child import Child
from standalone.guard import Guard
from standalone.home import Home
from standalone.stack import Stack
from standalone.supervision import Supervision
from standalone.waiting import wait_until
from store import api_keys
from store.database import Database
from store.tables import DEFAULT_TENANT

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ECIF_DEVICE": "cpu"}  # everything else is as it is by default


class World:
    """PostgreSQL, Redis, and the service over links to them, while the block lasts. Whatever dies is started again.

    `database_url` and `redis_url` lead to the servers themselves, past the links. `key` opens the API.
    """

    def __init__(self, home: Path, *, workers: int, say: Callable[[str], None]) -> None:
        self._home = home
        self._workers = workers
        self._say = say
        self._open = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def pid(self, name: str) -> int:
        """The process id of `api`, `worker`, `sweeper` or `redis` as it is now."""
        return (self.redis if name == "redis" else self.stack.processes[name]).pid

    def kill(self, name: str) -> int:
        """`kill -9`; the process id that was hit."""
        pid = self.pid(name)
        kill_process(pid)
        return pid

    def leaks(self) -> list[str]:
        """Logs that show a password or the key."""
        secrets = [make_url(url).password for url in (self.database_url, self.redis_url)]
        return [
            f"{folder.parent.name}/{log.name}"
            for folder in (self._home / "servers" / "logs", self._home / "service" / "logs")
            for log in sorted(folder.iterdir())
            if any(str(secret) in log.read_text(errors="replace") for secret in (*secrets, self.key))
        ]

    def _start(self) -> None:
        folder = self._home / "servers"
        self.database_url = self._open.enter_context(servers.postgres(folder))
        self._start_redis(Home.at(folder))
        self.postgres_link, to_database = self._linked(self.database_url)
        self.redis_link, to_redis = self._linked(self.redis_url)
        self.stack = self._open.enter_context(
            Stack(
                self._home / "service",
                workers=self._workers,
                database_url=to_database,
                redis_url=to_redis,
                environment=_ENVIRONMENT,
                say=self._say,
            )
        )

        with closing(Database(self.database_url)) as database, database.transaction() as session:
            _, self.key = api_keys.create(session, DEFAULT_TENANT, "chaos")

    def _start_redis(self, home: Home) -> None:
        port = ports.free_ports(1)[0]
        self.redis_url = redis_server.url_of(home, port)
        self.redis = Child(redis_server.command(home, port), self._open.enter_context(Guard()))
        self._open.callback(self.redis.stop)
        self.redis.start()
        wait_until(lambda: redis_server.answers(self.redis, self.redis_url), self.redis, 30)
        self._open.callback(Supervision((self.redis,), self._say).close)

    def _linked(self, url: str) -> tuple[Link, str]:
        parts = make_url(url)
        assert parts.port is not None  # noqa: S101  both servers are told their port
        link = self._open.enter_context(Link(parts.port))
        return link, parts.set(port=link.port).render_as_string(hide_password=False)


def kill_process(pid: int) -> None:
    """`kill -9`; nothing where it is gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
