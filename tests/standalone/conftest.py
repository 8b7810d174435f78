"""What the tests of the standalone room share: watching processes, and a service whose parts are stand-ins."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from standalone.guard import Guard

_STAND_INS = Path(__file__).with_name("stand_ins.py")
_BETWEEN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


def is_there(pid: int) -> bool:
    """Whether a process runs. One that ended and was not reaped by whoever should is not there."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return once the condition holds; fail when it does not within a time that no loaded machine should need."""

    def wait(holds: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come to hold"
            time.sleep(0.02)

    return wait


@pytest.fixture
def there() -> Callable[[int], bool]:
    return is_there


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard() as guard:
        yield guard


@pytest.fixture
def descendants() -> Callable[[int], set[int]]:
    """Every process that a process has started, and those that they have, and so on."""

    def find(root: int) -> set[int]:
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(entry.name)] = int(stat[1])
        below = {root}
        while True:
            more = {pid for pid, parent in parents.items() if parent in below} - below
            if not more:
                return below - {root}
            below |= more

    return find


@pytest.fixture
def start_serve(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m standalone serve`, with servers that are real and services that are stand-ins."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        ours = {"PORT": "0", "ECIF_HOME": str(tmp_path / "home"), "ECIF_WORKERS": "1"}
        between = [sys.executable, "-c", _BETWEEN] if environment.pop("STAND_BETWEEN", "") else []
        process = subprocess.Popen(
            [*between, sys.executable, _STAND_INS, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_without_service_variables() | ours | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _without_service_variables() -> dict[str, str]:
    ours = ("DATABASE_URL", "REDIS_URL", "BLOB_URL")
    return {name: value for name, value in os.environ.items() if name not in ours}
