"""One child process: started, waited for, watched and ended, always in that order."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from standalone.errors import DidNotStartError, StopRequestedError
from standalone.guard import Guard

_LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 4000
_STOP_POLL_SECONDS = 0.02


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Command:
    """What to run and how it ends."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 5.0
    before: Callable[[], None] = _nothing
    """Runs before every start: clears what an unclean end left behind."""


class Child:
    """A process that should be there from `start` to `stop`. Its pid changes when it is started again."""

    def __init__(self, command: Command, guard: Guard) -> None:
        self.command = command
        self.wanted = False
        self.lock = threading.RLock()
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: it was never started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll() if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.lock:
            self.wanted = True
            self.clear()
            _turn_over(self.command.log)
            self.command.before()
            self._process = self._guard.spawn(
                self.command.argv,
                environment=self.command.environment,
                log=self.command.log,
                cwd=self.command.cwd,
                stop_signal=self.command.stop_signal,
            )
            self._group = self._process.pid

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to end, wait as long as its grace lasts or until `hurry`, then kill what is left of its group."""
        with self.lock:
            self.wanted = False
            if self._process is None:
                return
            if self.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, self.command.stop_signal)
                deadline = time.monotonic() + self.command.grace_seconds
                while self.alive and time.monotonic() < deadline and not hurry():
                    time.sleep(_STOP_POLL_SECONDS)
            self.clear()

    def clear(self) -> None:
        """Kill what is left of the process group: a worker that was killed leaves its pool behind, still at work."""
        with self.lock:
            if self._process is None or self._group is None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
            self._process.wait()
            self._guard.ended(self._group)
            self._group = None

    def tail(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), self.command.log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()
        return ""


def _turn_over(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


_START_POLL_SECONDS = 0.03


def wait_until(
    up: Callable[[], bool],
    child: Child,
    seconds: float,
    *,
    may_die: bool = False,
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Return once `up()`. A child that `may_die` is started again by somebody else.

    Raises:
        DidNotStartError: the child ended, or `seconds` have passed; holds the end of its log.
        StopRequestedError: somebody wants no more of it.
    """
    deadline = time.monotonic() + seconds
    while not up():
        if stop_requested():
            raise StopRequestedError("stopped while starting")
        if not (child.alive or may_die):
            what = f"ended with status {child.returncode}"
        elif time.monotonic() > deadline:
            what = f"did not come up within {seconds:.0f} s"
        else:
            time.sleep(_START_POLL_SECONDS)
            continue
        raise DidNotStartError(child.name, what, child.command.log, child.tail())
