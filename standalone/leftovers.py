"""What a server of an earlier run left in its folder, when that run and its guard were both killed."""

import contextlib
import os
import signal
import time
from pathlib import Path

_GRACE_SECONDS = 5.0


def clear(pid_file: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    """End the server that `pid_file` names if it still works in that folder, and remove the file.

    Only the owner of the folder's lock may call this: whatever runs there then is an orphan. A stale file matters
    because its number may belong to some other process by now, and the server would refuse to start.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text().split()[0])
        deadline = time.monotonic() + _GRACE_SECONDS
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
