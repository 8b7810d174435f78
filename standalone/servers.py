"""A PostgreSQL or a Redis alone, for as long as a block lasts: what tests and benchmarks need."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from standalone import postgres as postgres_server
from standalone import redis_server
from standalone.child import Child, Command, wait_until
from standalone.guard import Guard
from standalone.home import Home
from standalone.ports import free_ports

_SECONDS = 30


@contextmanager
def postgres(home: Path, *, durable: bool = False) -> Iterator[str]:
    """Run PostgreSQL over `home`/postgres, which stays; yields its URL. Empty: no migration has run.

    Raises:
        StandaloneError: it cannot run here.
    """
    place, port = Home.at(home), free_ports(1)[0]
    url = postgres_server.url_of(place, port)
    with place.locked("postgres") as lock:
        command = postgres_server.command(place, port, durable=durable)
        with _running(command, lock, lambda child: postgres_server.answers(child, url)):
            yield url


@contextmanager
def redis(home: Path) -> Iterator[str]:
    """Run Redis over `home`/redis, which stays; yields its URL.

    Raises:
        StandaloneError: it cannot run here.
    """
    place, port = Home.at(home), free_ports(1)[0]
    url = redis_server.url_of(place, port)
    with place.locked("redis") as lock:
        command = redis_server.command(place, port)
        with _running(command, lock, lambda child: redis_server.answers(child, url)):
            yield url


@contextmanager
def _running(command: Command, lock: int, answers: Callable[[Child], bool]) -> Iterator[Child]:
    with Guard(keep=(lock,)) as guard:
        child = Child(command, guard)
        try:
            child.start()
            wait_until(lambda: answers(child), child, _SECONDS)
            yield child
        finally:
            child.stop()
