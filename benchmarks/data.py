"""Where figures are kept: one JSON file for each section, with what it was measured on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.sections import SECTIONS, Json

HOME: Final = Path(__file__).parent
_DIGITS = 6


@dataclass(frozen=True)
class Measured:
    """results: what the section's `run` returned. machine: `machine.facts`. minutes: how long it took."""

    results: Json
    machine: Json
    minutes: float


def write(folder: Path, name: str, measured: Measured) -> Path:
    """`folder`/data/`name`.json, floats to six digits."""
    path = folder / "data" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"section": name, "machine": measured.machine, "minutes": measured.minutes, "results": measured.results}
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    return path


def read(folder: Path) -> dict[str, Measured]:
    """Every section that has been measured, in the order of `SECTIONS`."""
    found = {}
    for section in SECTIONS:
        path = folder / "data" / f"{section.name}.json"
        if path.exists():
            content = json.loads(path.read_text())
            found[section.name] = Measured(content["results"], content["machine"], content["minutes"])
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
