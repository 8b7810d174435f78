"""The memory of a shard: what it frees is used again until its end, and the most that it took is told, of this process
and of its GPU where it used one."""

import ctypes
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESET_PEAK = "5"  # to /proc/self/clear_refs, see proc(5)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 32 << 20  # the largest threshold that glibc takes


@dataclass(frozen=True)
class Peak:
    """Bytes; `None` where the system does not tell, or there is no GPU in use."""

    memory_bytes: int | None = None
    device_memory_bytes: int | None = None


def begin() -> None:
    """From here on the peak is of what comes, and freed memory is used again (`end` gives it back).

    glibc would return each freed matrix to the system, which has to clear its pages when the next one is made: a third
    of the processor time of a Gauss-Newton product. Matrices above 32 MiB are returned as ever, so the peak hardly
    changes.
    """
    if (library := glibc()) is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    with suppress(OSError):  # where it is not allowed, the peak is of the process so far
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def peak() -> Peak:
    """The most since `begin`."""
    cuda = _cuda()
    return Peak(_resident(), None if cuda is None else int(cuda.max_memory_allocated()))


def end() -> None:
    """Give what was freed back to the system: the next shard may be one of hours that needs little."""
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def glibc() -> Any:
    """`None` where the C library is another."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _resident() -> int | None:
    with suppress(OSError):
        if line := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(line[1]) * 1024
    return None


def _cuda() -> Any:
    """`torch.cuda` where a GPU is in use; a worker that only fetches never imports torch."""
    torch: Any = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
