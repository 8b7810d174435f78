"""The owner's side of the guard: starting children so that none of them can outlive the owner.

A parent-death signal would be simpler, but it exists on Linux only, follows the thread that forked rather than the
process, is dropped when a child changes its user, and does not reach grandchildren such as the worker's pool.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_PROGRAM = Path(__file__).with_name("guard_process.py")
_GRACE_SECONDS = 5.0

# The child tells the guard about itself before it becomes the program, so there is no moment in which the owner can
# die and leave a child that nobody knows. Its standard input is the guard's pipe until then.
_ANNOUNCE = 'echo "+ $$ $1" >&0; shift; exec "$@" </dev/null'


class Guard:
    """Starts children, and a process beside them that ends them if this one is killed.

    `keep` names descriptors that stay open until the last child is gone: locks. `grace_seconds` is what the children
    get between being asked to end and being killed, when this process is gone.
    """

    def __init__(self, keep: Sequence[int] = (), *, grace_seconds: float = _GRACE_SECONDS) -> None:
        self._keep = tuple(keep)
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._children: dict[int, signal.Signals] = {}
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-I", "-S", _PROGRAM, str(self._grace_seconds)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=self._keep,
                cwd="/",
                start_new_session=True,  # so that Ctrl-C at the terminal does not reach it
            )
        finally:
            os.close(reading)
        for pid, stop_signal in self._children.items():
            os.write(self._pipe, f"+ {pid} {int(stop_signal)}\n".encode())

    def spawn(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """Start a child in a process group of its own, its output appended to `log`.

        Raises:
            OSError: the log cannot be written.
        """
        with self._lock, log.open("ab") as output:
            if self._process.poll() is not None:  # somebody killed it: nothing is started without a guard
                os.close(self._pipe)
                self._open()
            child = subprocess.Popen(  # noqa: S603  only this package says what to start
                ["/bin/sh", "-c", _ANNOUNCE, "sh", str(int(stop_signal)), *argv],
                stdin=self._pipe,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )
            self._children[child.pid] = stop_signal
            return child

    def ended(self, pid: int) -> None:
        """Say that this child is reaped, so that its number is never mistaken for a later process."""
        with self._lock, contextlib.suppress(OSError):
            self._children.pop(pid, None)
            os.write(self._pipe, f"- {pid}\n".encode())

    def close(self) -> None:
        """Let the guard go. Whatever it still knows of ends with it."""
        with self._lock:
            os.close(self._pipe)
        self._process.wait()
