"""What a section is, which there are, and the data of each.

A section measures one kind of claim. It is a module with a `run(size, say)` that returns its figures as JSON, an entry
in `SECTIONS` below, and a function of the same name in `page.PARTS` that writes its part of README.md from that JSON
(and, if it has plots, one in `plots.PLOTS`). Nothing else knows about it. Its figures are stored as one JSON file, with
what they were measured on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, cast

Json = dict[str, Any]
Say = Callable[[str], None]
"""Tells whoever waits how far it is."""

Size = Literal["full", "toy"]
"""`full` is what the page reports; `toy` runs every line of a section in seconds, and its figures mean nothing."""

Run = Callable[[Size, Say], Json]


@dataclass(frozen=True)
class Section:
    """name: of its data file and of its module. title: its heading on the page, in the order of `SECTIONS`."""

    name: str
    title: str

    def run(self, size: Size, say: Say) -> Json:
        """Measure. Its module is imported here: a section may need what others can do without."""
        return cast("Run", import_module(f"benchmarks.{self.name}").run)(size, say)


SECTIONS: Final = (
    Section("fidelity", "Fidelity: predictions against refits"),
    Section("cost", "Cost: against a plain embedding pass"),
    Section("retraining", "Against retraining"),
    Section("memory", "Memory"),
    Section("ingest", "Ingest: against reading the same bytes"),
    Section("gpu", "GPU"),
    Section("results", "Results of a large job"),
)


HOME: Final = Path(__file__).parent
_DIGITS = 6


@dataclass(frozen=True)
class Measured:
    """results: what the section's `run` returned. machine: `measuring.machine_facts`. minutes: how long it took."""

    results: Json
    machine: Json
    minutes: float


def write_data(folder: Path, name: str, measured: Measured) -> Path:
    """`folder`/data/`name`.json, floats to six digits."""
    path = folder / "data" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"section": name, "machine": measured.machine, "minutes": measured.minutes, "results": measured.results}
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    return path


def read_data(folder: Path) -> dict[str, Measured]:
    """Every section that has been measured, in the order of `SECTIONS`."""
    measured = {}
    for section in SECTIONS:
        path = folder / "data" / f"{section.name}.json"
        if path.exists():
            content = json.loads(path.read_text())
            measured[section.name] = Measured(content["results"], content["machine"], content["minutes"])
    return measured


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
