"""`make serve`, as whoever runs it sees it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from standalone import __main__ as command_line
from standalone import servers

Start = Callable[..., "subprocess.Popen[str]"]
Wait = Callable[..., None]
Descendants = Callable[[int], set[int]]


def _read_until(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if word in line:
            return said
    raise AssertionError(f"{word!r} was never said, but:\n{said}")


def _rest(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.read()


def _running(home: Path) -> dict[str, int]:
    return {name: int(pid) for name, pid in (line.split() for line in (home / "running").read_text().splitlines())}


def test_says_where_it_is_starts_again_what_died_and_refuses_a_second_one(start_serve: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    serving = start_serve()
    said = _read_until(serving, "Ctrl-C")
    url = next(line.split()[1] for line in said.splitlines() if "API" in line)
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    assert f"{url}/docs" in said
    assert str(home) in said
    assert "without keys" in said
    running = _running(home)
    assert set(running) == {"postgres", "redis", "api", "worker", "fetcher", "sweeper"}

    os.kill(running["sweeper"], signal.SIGKILL)
    said = _read_until(serving, "sweeper")
    assert "SIGKILL" in said
    assert str(home / "logs" / "sweeper.log") in said

    second = start_serve()
    assert second.wait(30) == 1
    said = _rest(second)
    assert f"process {serving.pid}" in said
    assert "ECIF_HOME" in said


def test_what_the_environment_names_is_used_and_not_started(start_serve: Start, tmp_path: Path) -> None:
    with servers.postgres(tmp_path / "theirs") as database_url, servers.redis(tmp_path / "theirs") as redis_url:
        plain_url = database_url.replace("+psycopg", "")
        serving = start_serve(DATABASE_URL=plain_url, REDIS_URL=redis_url, BLOB_URL="file:///elsewhere")
        said = _read_until(serving, "Ctrl-C")
        assert "the PostgreSQL of DATABASE_URL and the Redis of REDIS_URL" in said
        assert set(_running(tmp_path / "home")) == {"api", "worker", "fetcher", "sweeper"}
        given = (tmp_path / "home" / "environment").read_text().splitlines()
        assert {f"DATABASE_URL={database_url}", f"REDIS_URL={redis_url}", "BLOB_URL=file:///elsewhere"} <= set(given)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0


def test_ctrl_c_leaves_nothing_behind_also_when_a_child_hangs(
    start_serve: Start, there: Callable[[int], bool], descendants: Descendants
) -> None:
    serving = start_serve(STUBBORN="1")
    _read_until(serving, "Ctrl-C")
    everybody = descendants(serving.pid)
    serving.send_signal(signal.SIGINT)
    assert serving.wait(30) == 0
    assert not [pid for pid in everybody if there(pid)]


def test_nothing_outlives_one_that_was_killed_and_the_next_starts_over_the_same_data(
    start_serve: Start, there: Callable[[int], bool], descendants: Descendants
) -> None:
    serving = start_serve()
    _read_until(serving, "Ctrl-C")
    everybody = descendants(serving.pid)
    serving.kill()
    serving.wait()

    again = start_serve()  # waits for the lock, which is let go when the last child of the first is gone
    _read_until(again, "Ctrl-C")
    assert not [pid for pid in everybody if there(pid)]

    everybody = descendants(again.pid)
    again.send_signal(signal.SIGTERM)
    assert again.wait(30) == 0
    assert not [pid for pid in everybody if there(pid)]


def test_a_child_that_cannot_start_ends_it_with_the_end_of_its_log(start_serve: Start) -> None:
    serving = start_serve(WORKER_PROGRAM="raise SystemExit('no such model')")
    assert serving.wait(60) == 1
    said = _rest(serving)
    assert "worker ended with status 1" in said
    assert "no such model" in said


def test_a_taken_port_is_refused_before_anything_starts(start_serve: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = start_serve(PORT=str(port))
        assert serving.wait(30) == 1
    assert f"port {port} on 127.0.0.1 is taken" in _rest(serving)
    assert not (tmp_path / "home" / "postgres").exists()


def test_ends_with_the_process_that_started_it_when_asked_to(
    start_serve: Start, tmp_path: Path, there: Callable[[int], bool], eventually: Wait
) -> None:
    # `make` stands between: when it is killed, nobody is left to pass a signal on.
    between = start_serve("--with-parent", STAND_BETWEEN="1")
    eventually(lambda: (tmp_path / "home" / "running").exists())
    running = _running(tmp_path / "home").values()
    between.kill()
    between.wait()
    eventually(lambda: not [pid for pid in running if there(pid)])


@pytest.mark.parametrize(("variable", "value"), [("PORT", "eighty"), ("PORT", "70000"), ("ECIF_WORKERS", "0")])
def test_nonsense_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.setenv("ECIF_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["standalone", "serve"])
    assert command_line.main() == 1
    assert variable in capsys.readouterr().err
