"""What a section is, and which there are.

A section measures one kind of claim. It is a module with a `run(size, say)` that returns its figures as JSON, an entry
in `SECTIONS` below, and a function of the same name in `page.PARTS` that writes its part of README.md from that JSON
(and, if it has plots, one in `plots.PLOTS`). Nothing else knows about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
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
