"""The guard: a small process that ends the children of an owner which is gone, however it went.

It reads lines from its standard input, whose other end only the owner holds open: `+ PID SIGNAL` for a child that
started (PID also names its process group), `- PID` for one that ended. End of file means that the owner is gone.
Standard library only, and run without site-packages: it is up in a few hundredths of a second.
"""

import contextlib
import os
import signal
import sys
import time


def listen() -> dict[int, int]:
    """The process groups that were still there when the owner went, with the signal that ends each well."""
    groups: dict[int, int] = {}
    for line in sys.stdin:
        words = line.split()
        if words[0] == "+":
            groups[int(words[1])] = int(words[2])
        else:
            groups.pop(int(words[1]), None)
    return groups


def there(group: int) -> bool:
    """Whether the group has a process left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(groups: dict[int, int], grace_seconds: float) -> None:
    """Ask each group to end, wait a little, kill the rest."""
    for group, polite in groups.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, polite)
    deadline = time.monotonic() + grace_seconds
    while any(there(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end(listen(), float(sys.argv[1]))
