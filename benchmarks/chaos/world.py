"""What chaos is let loose on: the service as `make serve` starts it, its links to both servers in our hands."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self

import psycopg
from sqlalchemy import text
from sqlalchemy.engine import make_url

from benchmarks.chaos.link import Link
from benchmarks.chaos.receiver import Receiver
from standalone import ports, postgres, redis_server
from standalone.child import Child, wait_until
from standalone.guard import Guard
from standalone.home import Home
from standalone.stack import Stack
from standalone.supervision import Supervision
from store import api_keys
from store.database import Database
from store.tables import DEFAULT_TENANT

# Everything else is as it is by default. The receiver of notices is of this machine.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ECIF_DEVICE": "cpu", "ECIF_PRIVATE_RECEIVERS": "true"}
_DISK_MIB = 64
_HELD_COPIES = 0x0EC1D  # an advisory lock of our own
# A copy of results waits while somebody else holds the lock: so it can be caught in the middle.
_WAITING_COPIES = f"""
CREATE FUNCTION wait_for_chaos() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared({_HELD_COPIES}); RETURN NEW; END $$;
CREATE TRIGGER wait_for_chaos BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION wait_for_chaos();
"""


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
        """The process id of `api`, `worker`, `fetcher`, `sweeper`, `redis` or `postgres` as it is now."""
        return (self._servers | self.stack.processes)[name].pid

    def kill(self, name: str) -> int:
        """`kill -9`; the process id that was hit."""
        pid = self.pid(name)
        kill_process(pid)
        return pid

    @contextmanager
    def copies_held(self) -> Iterator[None]:
        """Whoever copies results waits while the block lasts."""
        with psycopg.connect(self.database_url.replace("+psycopg", "", 1)) as connection:
            connection.execute(f"SELECT pg_advisory_xact_lock({_HELD_COPIES})")
            yield

    def fill_disk(self) -> bool:
        """Leave no room for blobs; false where they have no disk of their own."""
        if self._disk is None:
            return False
        with (self._disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(64 * 1024)):
                pass
        return True

    def empty_disk(self) -> None:
        """Make room for blobs again."""
        if self._disk is not None:
            (self._disk / "filling").unlink(missing_ok=True)

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
        self._start_servers(Home.at(folder))
        self.receiver = self._open.enter_context(Receiver())
        self._disk = self._small_disk()
        self.postgres_link, to_database = self._linked(self.database_url)
        self.redis_link, to_redis = self._linked(self.redis_url)
        self.stack = self._open.enter_context(
            Stack(
                self._home / "service",
                workers=self._workers,
                database_url=to_database,
                redis_url=to_redis,
                blob_url=(self._disk / "blobs").as_uri() if self._disk is not None else "",
                environment=_ENVIRONMENT,
                say=self._say,
            )
        )

        with closing(Database(self.database_url)) as database, database.transaction() as session:
            _, self.key = api_keys.create(session, DEFAULT_TENANT, "chaos")
            session.execute(text(_WAITING_COPIES))

    def _start_servers(self, home: Home) -> None:
        postgres_port, redis_port = ports.free_ports(2)
        self.database_url = postgres.url_of(home, postgres_port)
        self.redis_url = redis_server.url_of(home, redis_port)
        guard = self._open.enter_context(Guard())
        self._servers: dict[str, Child] = {}
        for command, answers, url in (
            (postgres.command(home, postgres_port, durable=False), postgres.answers, self.database_url),
            (redis_server.command(home, redis_port), redis_server.answers, self.redis_url),
        ):
            child = self._servers[command.name] = Child(command, guard)
            self._open.callback(child.stop)
            child.start()
            wait_until(partial(answers, child, url), child, 30)
        self._open.callback(Supervision(tuple(self._servers.values()), self._say).close)

    def _small_disk(self) -> Path | None:
        """A file system of a few MiB, where this process may mount one."""
        folder = self._home / "disk"
        folder.mkdir()
        options = ("-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder))
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False)  # noqa: S607
        if mounted.returncode != 0:
            self._say(f"blobs have no disk of their own: {mounted.stderr.decode(errors='replace').strip()}")
            return None
        self._open.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        return folder

    def _linked(self, url: str) -> tuple[Link, str]:
        parts = make_url(url)
        assert parts.port is not None
        link = self._open.enter_context(Link(parts.port))
        return link, parts.set(port=link.port).render_as_string(hide_password=False)


def kill_process(pid: int) -> None:
    """`kill -9`; nothing where it is gone already."""
    signal_process(pid, signal.SIGKILL)


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal; nothing where the process is gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
