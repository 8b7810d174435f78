"""Children: how they start, end, and come back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from standalone.child import Child, Command, wait_until
from standalone.errors import DidNotStartError, StopRequestedError
from standalone.guard import Guard
from standalone.supervision import Supervision, pause_after

Wait = Callable[..., None]
Make = Callable[..., Child]

_SLEEP = "import time; time.sleep(600)"
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); " + _SLEEP
_WITH_CHILD = (
    "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', "
    "'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)']).pid, flush=True); "
) + _SLEEP


@pytest.fixture
def make(guard: Guard, tmp_path: Path) -> Iterator[Make]:
    made: list[Child] = []

    def child(program: str, grace_seconds: float = 5, name: str = "child") -> Child:
        command = Command(
            name=name,
            argv=(sys.executable, "-c", program),
            environment=os.environ,
            log=tmp_path / f"{name}.log",
            grace_seconds=grace_seconds,
        )
        made.append(Child(command, guard))
        return made[-1]

    yield child
    for each in made:
        each.stop()


def _said(child: Child) -> str:
    return child.tail()


@contextmanager
def supervised(*children: Child) -> Iterator[list[str]]:
    said: list[str] = []
    supervision = Supervision(children, said.append)
    try:
        yield said
    finally:
        supervision.close()


def test_a_child_runs_from_start_to_stop_with_its_output_in_its_log(make: Make, eventually: Wait) -> None:
    child = make("print('hello', flush=True); " + _SLEEP)
    before = child.alive
    assert not before
    child.start()
    eventually(lambda: _said(child) == "hello")
    assert child.alive
    child.stop()
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_ignores_its_signal_is_killed_after_its_grace(make: Make, eventually: Wait) -> None:
    child = make(_STUBBORN, grace_seconds=0.1)
    child.start()
    eventually(lambda: _said(child) == "deaf")
    child.stop()
    assert child.returncode == -signal.SIGKILL


def test_hurry_cuts_the_grace_short(make: Make, eventually: Wait) -> None:
    child = make(_STUBBORN, grace_seconds=1000)
    child.start()
    eventually(lambda: _said(child) == "deaf")
    child.stop(hurry=lambda: True)
    assert child.returncode == -signal.SIGKILL


def test_what_a_child_started_ends_with_it(make: Make, eventually: Wait, there: Callable[[int], bool]) -> None:
    child = make(_WITH_CHILD)
    child.start()
    eventually(lambda: _said(child).isdecimal())
    grandchild = int(_said(child))
    assert there(grandchild)
    child.stop()
    eventually(lambda: not there(grandchild))


def test_a_large_log_is_turned_over_at_the_next_start(make: Make, tmp_path: Path) -> None:
    child = make(_SLEEP)
    with child.command.log.open("wb") as stream:
        stream.truncate(17 * 1024 * 1024)
    child.start()
    assert child.command.log.stat().st_size == 0
    assert (tmp_path / "child.log.1").exists()


def test_a_child_that_died_is_started_again_and_its_remains_are_cleared(
    make: Make, eventually: Wait, there: Callable[[int], bool]
) -> None:
    child = make(_WITH_CHILD)
    child.start()
    eventually(lambda: _said(child).isdecimal())
    first, grandchild = child.pid, int(_said(child))
    with supervised(child) as said:
        os.kill(first, signal.SIGKILL)
        eventually(lambda: child.pid != first and child.alive)
    assert not there(grandchild)
    assert "child was ended by SIGKILL" in said[0]
    assert str(child.command.log) in said[0]


@pytest.mark.parametrize(("well_after", "pauses"), [(60.0, ["0.2", "0.4"]), (0.0, ["0.2", "0.2"])])
def test_the_pause_grows_only_while_a_child_dies_young(
    make: Make, eventually: Wait, monkeypatch: pytest.MonkeyPatch, well_after: float, pauses: list[str]
) -> None:
    monkeypatch.setattr("standalone.supervision._WELL_SECONDS", well_after)
    child = make(_SLEEP)
    child.start()
    with supervised(child) as said:
        for death in (1, 2):
            os.kill(child.pid, signal.SIGKILL)
            eventually(lambda death=death: len(said) == death and child.alive)
    assert [line.partition("again in ")[2].split()[0] for line in said] == pauses


def test_a_child_that_was_stopped_stays_stopped(make: Make, eventually: Wait) -> None:
    stopped, other = make(_SLEEP, name="stopped"), make(_SLEEP, name="other")
    stopped.start()
    other.start()
    stopped.stop()
    with supervised(stopped, other) as said:
        first = other.pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: other.pid != first)  # the supervision has looked at both by now
    assert not stopped.alive
    assert all("stopped" not in line.split() for line in said)


def test_the_pause_grows_up_to_a_bound() -> None:
    pauses = [pause_after(deaths) for deaths in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == pause_after(10_000) == 30


def test_waiting_tells_of_a_child_that_ended(make: Make) -> None:
    child = make("raise SystemExit('out of paper')")
    child.start()
    with pytest.raises(DidNotStartError, match="child ended with status 1") as error:
        wait_until(lambda: False, child, 30)
    assert "out of paper" in str(error.value)
    assert str(child.command.log) in str(error.value)


def test_waiting_is_bounded_and_can_be_called_off(make: Make) -> None:
    child = make(_SLEEP)
    child.start()
    with pytest.raises(DidNotStartError, match="did not come up within"):
        wait_until(lambda: False, child, 0.05)
    with pytest.raises(StopRequestedError):
        wait_until(lambda: False, child, 30, stop_requested=lambda: True)


def test_children_do_not_outlive_an_owner_that_is_killed(
    tmp_path: Path, eventually: Wait, there: Callable[[int], bool]
) -> None:
    owner = (
        "import os, signal, sys; from pathlib import Path; from standalone.guard import Guard; "
        "guard = Guard(grace_seconds=0.5); "
        f"log = Path({str(tmp_path / 'log')!r}); "
        f"pids = [guard.spawn([sys.executable, '-c', {_WITH_CHILD!r}], environment=os.environ, log=log).pid "
        "for _ in range(2)]; print(*pids, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        eventually(lambda: len((tmp_path / "log").read_text().split()) == len(pids))
        grandchildren = [int(word) for word in (tmp_path / "log").read_text().split()]
        process.kill()
    eventually(lambda: not any(there(pid) for pid in pids + grandchildren))


def test_a_guard_that_was_killed_is_replaced_and_the_new_one_knows_the_children(tmp_path: Path) -> None:
    def spawn() -> "subprocess.Popen[bytes]":
        program = f"print('up', flush=True); {_SLEEP}"
        return guard.spawn([sys.executable, "-c", program], environment=os.environ, log=tmp_path / "log")

    with Guard(grace_seconds=0.2) as guard:
        first = spawn()
        # Before its program runs it tells the guard about itself; one that dies in between takes the child with it.
        deadline = time.monotonic() + 30
        while (tmp_path / "log").read_text() != "up\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        guard._process.kill()
        guard._process.wait()
        second = spawn()
    assert [first.wait(30), second.wait(30)] == [-signal.SIGTERM, -signal.SIGTERM]
