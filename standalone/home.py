"""The folder that holds everything on this machine, the lock that lets one owner in, and the servers that an earlier
owner may have left at work in it."""

import contextlib
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from standalone.errors import HomeInUseError

_PRIVATE = 0o600
_LAST_OWNER_SECONDS = 8.0
"""After an owner was killed its guard holds the lock until the children are gone: longer than that takes."""


@dataclass(frozen=True)
class Home:
    """`ECIF_HOME`: where each part keeps its files."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Home":
        """Make the folder where it is missing: others may pass through it, as PostgreSQL must, and see nothing else.

        Raises:
            OSError: it cannot be made or written.
        """
        home = cls(path.expanduser().resolve())
        home.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        for folder in (home.redis, home.blobs, home.path / "logs"):
            folder.mkdir(mode=0o700, exist_ok=True)
        return home

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def password(self, name: str) -> str:
        """A secret of this folder, drawn once. Loopback is open to every user of the machine; our data is not."""
        file = self.path / f"{name}.password"
        if not file.exists():
            write_private(file, secrets.token_urlsafe(24))
        return file.read_text()

    @contextmanager
    def locked(self, name: str) -> Iterator[int]:
        """Hold the lock `name` of this folder; yields its descriptor, which a child may hold on to.

        Raises:
            HomeInUseError: another process holds it, and goes on holding it.
        """
        descriptor = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LAST_OWNER_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 100, 0).decode(errors="replace")
                # An owner that lives will not let go: say so at once. One that was killed is being cleared up.
                if _lives(owner) or time.monotonic() > deadline:
                    raise HomeInUseError(self.path, owner or "unknown") from None
                time.sleep(0.05)
            else:
                return


def write_private(file: Path, text: str) -> None:
    """Write a file that no other user can read, not even for a moment; replaces what was there at once."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    fresh.replace(file)


def _lives(owner: str) -> bool:
    try:
        os.kill(int(owner.removeprefix("process ")), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


_LEFTOVER_GRACE_SECONDS = 5.0


def end_leftover(pid_file: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    """End the server that `pid_file` names if it still works in that folder, and remove the file: what an earlier run
    left when it and its guard were both killed.

    Only the owner of the folder's lock may call this: whatever runs there then is an orphan. A stale file matters
    because its number may belong to some other process by now, and the server would refuse to start.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text().split()[0])
        deadline = time.monotonic() + _LEFTOVER_GRACE_SECONDS
        while _works_in(pid, pid_file.parent):
            os.kill(pid, stop_signal if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(0.1)
        pid_file.unlink()


def _works_in(pid: int, folder: Path) -> bool:
    # Both servers make their data folder their working folder. Where there is no /proc nothing is ended here.
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False
