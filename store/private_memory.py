"""Memory and environment of a process, kept from other processes of the same user."""

import ctypes
import os
import sys

_SET_DUMPABLE = 4  # prctl(2)


def keep_memory_private() -> None:
    """From now on `/proc/PID/environ` and `/proc/PID/mem` of this process are for root alone, no debugger of the same
    user attaches, and no core is dumped. A program that it becomes by exec begins anew. Linux only; nothing elsewhere.

    Raises:
        OSError: the kernel refuses.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
