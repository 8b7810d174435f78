"""What a section is, which there are, and the data of each.

A section measures one kind of claim. It is a module (or a package) with a `run(size, say)` that returns its figures as
JSON, an entry in `SECTIONS` below, and a function of the same name in `page.PARTS` that writes its part of README.md
from that JSON (and, if it has plots, one in `plots.PLOTS`). Nothing else knows about it. Its figures are one JSON file,
with what they were measured on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, cast

Json = dict[str, Any]
Say = Callable[[str], None]
"""Tells whoever waits how far it is."""

Size = Literal["full", "toy"]
"""`full` is what the page reports; `toy` runs every line of a section in seconds, and its figures mean nothing."""

Run = Callable[[Size, Say], Json]


RunPiece = Callable[[str, Json | None, Callable[[Json], None], Say], None]


@dataclass(frozen=True)
class Section:
    """name: of its data file. title: its heading on the page, in the order of `SECTIONS`.

    pieces: of what takes hours. Each is measured when it is asked for by name, goes on where it was cut off, and has a
    data file of its own; the module then has a `run_piece(piece, before, keep, say)` too.
    """

    name: str
    title: str
    pieces: tuple[str, ...] = ()
    module: str = ""
    """Below `benchmarks`; of the section's name where it is not said."""

    def run(self, size: Size, say: Say) -> Json:
        """Measure."""
        return cast("Run", self._module().run)(size, say)

    def run_piece(self, piece: str, before: Json | None, keep: Callable[[Json], None], say: Say) -> None:
        """Measure what `before`, the figures of an earlier run, does not have yet; hand all to `keep` as they come."""
        cast("RunPiece", self._module().run_piece)(piece, before, keep, say)

    def _module(self) -> ModuleType:
        """Imported when it is needed: a section may need what others can do without."""
        return import_module(f"benchmarks.{self.module or self.name}")


SECTIONS: Final = (
    Section("fidelity", "Fidelity: predictions against refits"),
    Section("cost", "Cost: against a plain embedding pass"),
    Section("answer", "What an answer costs: whole jobs"),
    Section(
        "detection",
        "Detection: which column finds wrong pairs",
        ("digits", "scenes", "emoji", "photos", "costs", "flags"),
        "detection.section",
    ),
    Section(
        "attribution",
        "Attribution: predictions against retraining, beside other packages",
        ("digits", "scenes", "emoji"),
        "attribution.section",
    ),
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
    measured = {section.name: read_one(folder, section.name) for section in SECTIONS}
    return {name: one for name, one in measured.items() if one is not None}


def read_pieces(folder: Path, section: Section) -> dict[str, Measured]:
    """Those of its pieces that have been measured, some perhaps in part."""
    measured = {piece: read_one(folder, f"{section.name}_{piece}") for piece in section.pieces}
    return {name: one for name, one in measured.items() if one is not None}


def read_one(folder: Path, name: str) -> Measured | None:
    """What `write_data` wrote under that name."""
    path = folder / "data" / f"{name}.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return Measured(content["results"], content["machine"], content["minutes"])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
