"""Whether a worker process on this machine is still there: each holds a lock on a file of its own.

The kernel lets the lock go when the process ends, however it ends, and not before. So whoever can take the lock knows
that the process is gone, where a process id may be somebody else's by now, or count in another container. The file's
name is the worker's name in the rows, and is drawn anew for each process.
"""

import fcntl
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_KERNEL_COUNTS = Path("/proc/vmstat")


@dataclass(frozen=True)
class Departed:
    """A process that is gone. `out_of_memory` says that since it appeared the kernel of this machine has killed
    something because memory ran out: most likely this process."""

    name: str
    out_of_memory: bool


def _kills_for_memory() -> int:
    """How often the kernel has killed for want of memory since it was started; 0 where it does not say."""
    try:
        counted = re.search(r"^oom_kill (\d+)$", _KERNEL_COUNTS.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(counted[1]) if counted else 0


def appear(folder: Path) -> str:
    """Be there for as long as this process lives; returns the name to be known by.

    Where the folder cannot be written, nobody learns early that the process is gone: its leases run out.
    """
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not _held(folder / name):
            pass
    except OSError as error:
        logger.warning("no lock file in %s: %s", folder, error)
    return name


def _held(file: Path) -> bool:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)  # never closed, and no program run from here inherits it
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.pwrite(descriptor, b"%d" % _kills_for_memory(), 0)
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False  # somebody found the lock free a moment ago, and removed the file


def departed(folder: Path) -> Iterator[Departed]:
    """The processes that are gone. Each is forgotten when the caller asks for the next."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        with _taken(file) as gone:
            if gone:
                before = file.read_bytes()
                yield Departed(file.name, before.isdigit() and _kills_for_memory() > int(before))
                file.unlink(missing_ok=True)


@contextmanager
def _taken(file: Path) -> Iterator[bool]:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError:
        yield False  # another looked first
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
