"""PostgreSQL and Redis of our own."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from standalone import postgres, servers
from standalone.errors import HomeInUseError
from standalone.home import Home, end_leftover

Wait = Callable[..., None]


def _connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


@pytest.fixture
def closed_home(tmp_path: Path) -> Path:
    """A folder with a path longer than any socket's, below one that is closed to other users."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    return private / ("a long name with spaces " * 8).strip() / "home"


def test_postgres_keeps_its_data_also_over_an_unclean_end(closed_home: Path) -> None:
    with servers.postgres(closed_home, durable=True) as url:
        with _connect(url) as connection:
            connection.execute("CREATE TABLE answers AS SELECT 42 AS answer")
            assert connection.info.server_version // 10_000 == 18
        pid_file = closed_home / "postgres" / "postmaster.pid"
        stale = pid_file.read_text()
        os.kill(int(stale.split()[0]), signal.SIGKILL)
    # The number in a stale file may belong to anybody by now: here, to this process.
    pid_file.write_text(stale.replace(stale.split()[0], str(os.getpid()), 1))
    with servers.postgres(closed_home) as url, _connect(url) as connection:
        assert connection.execute("SELECT answer FROM answers").fetchone() == (42,)


def test_postgres_asks_for_its_password(tmp_path: Path) -> None:
    with servers.postgres(tmp_path) as url:
        password = (tmp_path / "postgres.password").read_text()
        assert password in url
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            _connect(url.replace(password, "guess"))
        with pytest.raises(HomeInUseError), servers.postgres(tmp_path):
            pass


def test_redis_evicts_nothing_and_keeps_its_data(closed_home: Path) -> None:
    with servers.redis(closed_home) as url, redis.Redis.from_url(url) as connection:
        connection.rpush("queue", "message")
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with (
            redis.Redis.from_url(url.replace(":" + url.split(":")[2].split("@")[0] + "@", "")) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    with servers.redis(closed_home) as url, redis.Redis.from_url(url) as connection:
        assert connection.lrange("queue", 0, -1) == [b"message"]


def test_an_orphan_in_the_folder_is_ended(tmp_path: Path, eventually: Wait, there: Callable[[int], bool]) -> None:
    with servers.redis(tmp_path):
        pid_file = tmp_path / "redis" / "redis.pid"
        eventually(pid_file.exists)
        pid = int(pid_file.read_text())
        end_leftover(pid_file)
        assert not there(pid)
        assert not pid_file.exists()


def test_the_service_is_no_superuser_and_owns_what_an_earlier_version_made(tmp_path: Path) -> None:
    with servers.postgres(tmp_path) as url:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE earlier (id bigint GENERATED ALWAYS AS IDENTITY)")
        port = make_url(url).port
        assert port is not None
        for _ in range(2):
            as_service = postgres.admit_service(Home.at(tmp_path), port).replace("+psycopg", "")
        with psycopg.connect(as_service, autocommit=True) as connection:
            connection.execute("INSERT INTO earlier DEFAULT VALUES")
            connection.execute("ALTER TABLE earlier ADD COLUMN later text")
            connection.execute("CREATE TABLE mine ()")
            rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            assert connection.execute(rights).fetchone() == (False,)
            for forbidden in ("COPY earlier FROM PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden.encode())
