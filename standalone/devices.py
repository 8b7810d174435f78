"""How many worker processes this machine should run."""

import os
from collections.abc import Mapping
from pathlib import Path


def worker_processes(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """`ECIF_WORKERS`, else one for each GPU, else one: on a CPU a single process already uses every core.

    Looks at device files rather than asking torch, whose import takes seconds.

    Raises:
        ValueError: `ECIF_WORKERS` is not a number above 0.
    """
    asked = environment.get("ECIF_WORKERS", "")
    if asked:
        if not asked.isdecimal() or int(asked) == 0:
            raise ValueError(f"ECIF_WORKERS must be a number above 0, not {asked!r}")
        return int(asked)
    wanted = environment.get("ECIF_DEVICE", "auto")
    if wanted not in ("auto", "cuda"):
        return 1
    present = sum(1 for file in devices.glob("nvidia*") if file.name.removeprefix("nvidia").isdecimal())
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
        present = min(present, len(named))
    return max(present, 1)
