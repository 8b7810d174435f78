"""A PostgreSQL of our own: one cluster in one folder, reached over loopback with a password."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from standalone.child import Child, Command
from standalone.errors import StandaloneError
from standalone.home import Home, end_leftover
from standalone.programs import Servant, postgres_program, servant

_ROLE = "ecif"  # made by initdb: a superuser, which could read files and run programs
_SERVICE_ROLE = "ecif_service"
# What an earlier version made as the superuser becomes the service's, too.
_OWNS_ITS_TABLES = f"""
DO $$ DECLARE thing text; BEGIN
    FOR thing IN SELECT oid::regclass FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> '{_SERVICE_ROLE}'::regrole
    LOOP EXECUTE format('ALTER TABLE %s OWNER TO {_SERVICE_ROLE}', thing); END LOOP;
    FOR thing IN SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner <> '{_SERVICE_ROLE}'::regrole
    LOOP EXECUTE format('ALTER FUNCTION %s OWNER TO {_SERVICE_ROLE}', thing); END LOOP;
END $$
"""  # noqa: S608  our own names
# For tests, which make a new cluster every time: nothing has to outlive a power cut.
_NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def url_of(home: Home, port: int) -> str:
    """The address as SQLAlchemy takes it. The password is of letters, digits, `-` and `_`: nothing to quote."""
    return f"postgresql+psycopg://{_ROLE}:{home.password('postgres')}@127.0.0.1:{port}/postgres"


def admit_service(home: Home, port: int) -> str:
    """Give the service a role that owns its tables and has no other rights; returns its address.

    Raises:
        psycopg.OperationalError: PostgreSQL does not answer.
    """
    password = home.password("postgres-service")
    with psycopg.connect(url_of(home, port).replace("+psycopg", "", 1)) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [_SERVICE_ROLE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(_SERVICE_ROLE)))
        login = sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}")
        connection.execute(login.format(sql.Identifier(_SERVICE_ROLE), sql.Literal(password)))
        connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(_SERVICE_ROLE)))
        connection.execute(_OWNS_ITS_TABLES.encode())
    return f"postgresql+psycopg://{_SERVICE_ROLE}:{password}@127.0.0.1:{port}/postgres"


def command(home: Home, port: int, *, durable: bool = True) -> Command:
    """Make the cluster where there is none, and say how to run it in the foreground.

    Raises:
        StandaloneError: PostgreSQL is not installed, cannot run here, or `initdb` failed.
    """
    data, program = home.postgres, postgres_program("postgres")
    runs_as = servant(data, program)
    if not (data / "PG_VERSION").exists():
        _make_cluster(home, runs_as, durable)
    settings = [
        "listen_addresses=127.0.0.1",
        f"port={port}",
        # No socket file: its path would have to be shorter than 107 characters, and an ECIF_HOME need not be.
        "unix_socket_directories=",
        "max_connections=200",
        "logging_collector=off",
        *(() if durable else _NOT_DURABLE),
    ]
    options = [word for setting in settings for word in ("-c", setting)]
    return Command(
        name="postgres",
        argv=(*runs_as.prefix, str(program), "-D", str(data), *options),
        environment=os.environ | {"LC_ALL": "C"},
        log=home.log("postgres"),
        cwd=Path("/"),
        stop_signal=signal.SIGINT,  # "fast": ends sessions rather than waiting for them
        grace_seconds=10,
        before=lambda: end_leftover(data / "postmaster.pid", signal.SIGINT),
    )


def answers(child: Child, url: str) -> bool:
    """Whether it takes connections."""
    if not child.alive:
        return False
    try:
        psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _make_cluster(home: Home, runs_as: Servant, durable: bool) -> None:
    # A cluster is made beside its place and moved there when it is whole: an initdb that was killed leaves no half.
    with tempfile.TemporaryDirectory(dir=home.path, prefix=".initdb-", ignore_cleanup_errors=True) as folder:
        fresh, password = Path(folder) / "data", Path(folder) / "password"
        fresh.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(home.password("postgres"))
        for path in (Path(folder), fresh, password):
            runs_as.own(path)
        initdb = [*runs_as.prefix, str(postgres_program("initdb")), "-D", str(fresh), "-U", _ROLE]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-locale"]
        if not durable:
            initdb.append("--no-sync")
        made = subprocess.run(  # noqa: S603  a program of our own package
            initdb, capture_output=True, text=True, check=False, cwd="/", env=os.environ | {"LC_ALL": "C"}
        )
        if made.returncode != 0:
            raise StandaloneError(f"initdb failed in {home.path}:\n{made.stderr.strip()}")
        fresh.rename(home.postgres)
