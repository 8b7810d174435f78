"""The most memory that a shard took: of this process, and of its GPU where it used one."""

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RESET_PEAK = "5"  # to /proc/self/clear_refs, see proc(5)


@dataclass(frozen=True)
class Peak:
    """Bytes; `None` where the system does not tell, or there is no GPU in use."""

    memory_bytes: int | None = None
    device_memory_bytes: int | None = None


def begin() -> None:
    """From here on the peak is of what comes."""
    with suppress(OSError):  # where it is not allowed, the peak is of the process so far
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def peak() -> Peak:
    """The most since `begin`."""
    cuda = _cuda()
    return Peak(_resident(), None if cuda is None else int(cuda.max_memory_allocated()))


def _resident() -> int | None:
    with suppress(OSError):
        if line := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(line[1]) * 1024
    return None


def _cuda() -> Any:
    """`torch.cuda` where a GPU is in use; a worker that only fetches never imports torch."""
    torch: Any = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
