"""A worker that does everything there is to do and tells the peak of its memory, phase by phase. Settings: stdin."""

from __future__ import annotations

import json
import sys

from benchmarks.measuring import peak_mib
from benchmarks.one_process import work_everything
from store.settings import Settings


def main() -> None:
    """Work, then print JSON: the highest peak, the peak of each phase, and what the bare process had, in MiB."""
    worked = work_everything(Settings.model_validate_json(sys.stdin.read()))
    peak = max([*worked.peak_mib.values(), peak_mib()])
    print(json.dumps({"peak_mib": peak, "bare_mib": worked.at_rest_mib, "phases": worked.peak_mib}))


if __name__ == "__main__":
    main()
