"""A worker that does everything there is to do and tells the peak of its memory, phase by phase. Settings: stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from worker import pipeline
from worker.attempts.attempt import Workplace, work_once
from worker.attempts.task import Done, Task
from worker.outputs import Output

_RESET_PEAK = "5"  # to /proc/self/clear_refs, see proc(5)


def main() -> None:
    """Work, then print JSON: the highest peak, the peak of each phase, and what the bare process had, in MiB."""
    settings = Settings.model_validate_json(sys.stdin.read())
    place = Workplace(settings, Database.from_settings(settings), Blobs.from_settings(settings))
    peaks: dict[str, float] = {}
    run = pipeline.run

    def watched(task: Task) -> Done[Output]:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        try:
            return run(task)
        finally:
            phase = str(task.claim.phase)
            peaks[phase] = max(peaks.get(phase, 0.0), _mib("VmHWM"))

    pipeline.run = watched  # what `work_once` calls, by name
    bare = _mib("VmRSS")
    while work_once(place) is not None:
        pass
    place.database.close()
    print(json.dumps({"peak_mib": max([*peaks.values(), _mib("VmHWM")]), "bare_mib": bare, "phases": peaks}))


def _mib(field: str) -> float:
    """A field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {field}")


if __name__ == "__main__":
    main()
