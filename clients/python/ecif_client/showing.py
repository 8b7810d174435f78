"""How things are shown: bars on a terminal, plain lines elsewhere, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Json = dict[str, Any]
_MEMORY = ("memory_bytes", "device_memory_bytes")
_COLUMNS = (
    "rank",
    "key",
    "caption",
    "suspicion",
    "influence",
    "self_influence",
    "clip_score",
    "flagged",
    "better_caption",
    "exchanged_with",
)


class Shown:
    """Where a command writes: what was asked for to stdout, everything about it to stderr."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._out: TextIO = sys.stdout
        self._console = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A remark to people."""
        self._err.print(text, markup=False)

    def answer(self, content: Json, text: str) -> None:
        """What was asked for."""
        if self._json:
            print(json.dumps(content), file=self._out)
        else:
            self._console.print(text, markup=False)

    def rows(self, rows: Iterator[Json]) -> None:
        """Results: a table on a terminal, else one JSON object a line."""
        if self._json or not self._out.isatty():
            for row in rows:
                print(json.dumps(row), file=self._out)
            return
        listed = list(rows)
        names = [name for name in _COLUMNS if any(row.get(name) is not None for row in listed)]
        table = Table(box=None)
        for name in names:
            table.add_column(name, overflow="ellipsis", no_wrap=True, justify="left" if name == "caption" else "right")
        for row in listed:
            table.add_row(*(_cell(row[name]) for name in names))
        self._console.print(table)

    def estimate(self, estimated: Json) -> None:
        """What a job would take: a row for each phase."""
        if self._json:
            print(json.dumps(estimated), file=self._out)
            return
        table = Table(box=None)
        for name in ("phase", "shards", "seconds", "memory", "GPU memory", "based on"):
            table.add_column(name, justify="left" if name in ("phase", "based on") else "right")
        for phase in estimated["phases"]:
            based = f"{phase['based_on']} finished" if phase["based_on"] else phase["reason"]
            table.add_row(phase["phase"], _cell(phase["shards"]), *_taken(phase), based)
        table.add_row("all", "", *_taken(estimated), "")
        self._console.print(table)

    @contextmanager
    def following(self) -> Iterator[Callable[[Json], None]]:
        """Show a job as it goes on."""
        if self._json:
            yield lambda _: None
        elif self._err.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[of]}"),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._err, transient=True) as progress:
                bar = progress.add_task("queued", total=None, of="")

                def move(job: Json) -> None:
                    state = job["progress"] or {"done": 0, "total": 0, "unit": ""}
                    of = f"{state['done']}/{state['total']} {state['unit']}" if state["total"] else ""
                    name = job["phase"] or job["status"]
                    progress.update(bar, description=name, completed=state["done"], total=state["total"] or None, of=of)

                yield move
        else:
            last = ""

            def line(job: Json) -> None:
                nonlocal last
                now = f"{job['status']} {job['phase'] or ''}".strip()
                if now != last:
                    self.say(now)
                last = now

            yield line


def _taken(one: Json) -> tuple[str, ...]:
    """Seconds and both kinds of memory, for people; a dash where one is not known."""
    seconds = "–" if one["seconds"] is None else f"{one['seconds']:,.1f}"
    return seconds, *("–" if one[kind] is None else f"{one[kind] / 2**20:,.0f} MiB" for kind in _MEMORY)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.3g}"
    # Captions are strangers' text: a control character could move the cursor or change colours.
    return "" if value is None else "".join(c if c.isprintable() else " " for c in str(value))[:60].replace("[", "\\[")
