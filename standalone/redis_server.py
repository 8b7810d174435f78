"""A Redis of our own, as Celery's broker: an append-only file, nothing evicted, loopback with a password."""

import os

import redis

from standalone.child import Child, Command
from standalone.home import Home, end_leftover, write_private
from standalone.programs import redis_program

_PID_FILE = "redis.pid"


def url_of(home: Home, port: int) -> str:
    return f"redis://:{home.password('redis')}@127.0.0.1:{port}/0"


def command(home: Home, port: int) -> Command:
    """Write the configuration, and say how to run it in the foreground.

    Raises:
        StandaloneError: Redis is not installed.
    """
    program = redis_program("redis-server")
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        # In a file, not on the command line: every user of the machine can read command lines.
        "requirepass": home.password("redis"),
        "dir": ".",
        "pidfile": _PID_FILE,
        "appendonly": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    write_private(home.redis / "redis.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    return Command(
        name="redis",
        argv=(str(program), "redis.conf"),
        environment=os.environ,
        log=home.log("redis"),
        cwd=home.redis,
        before=lambda: end_leftover(home.redis / _PID_FILE),
    )


def answers(child: Child, url: str) -> bool:
    """Whether it takes commands."""
    if not child.alive:
        return False
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False
