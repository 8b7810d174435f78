"""What a figure was measured on: enough to judge it by, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """Date, cores, threads, versions, and the load at the start: timings on a busy machine are noisy."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
