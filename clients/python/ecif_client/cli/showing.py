"""How things are shown: bars on a terminal, plain lines elsewhere, and in each format that was asked for."""

import csv
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

from ecif_client.answers import Event, Job
from ecif_client.errors import ClientError

FORMATS = ("table", "json", "csv", "markdown")
Row = Mapping[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_CELL = 60
_WIDTH_OF_A_FILE = 2000  # where nothing need be cut short


class Shown:
    """Where a command writes: what was asked for to stdout, everything about it to stderr."""

    def __init__(self, form: str | None) -> None:
        self._form = form
        width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
        self._console = Console(highlight=False, soft_wrap=True, width=width)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self.when_stopped = "stopped"
        """what to say to who presses Ctrl-C"""

    def say(self, text: str) -> None:
        """A remark to people."""
        self._err.print(printable(text), markup=False)

    def trying_again(self, error: ClientError, seconds: float) -> None:
        """A remark on a request that is sent again."""
        self.say(f"ecif: {error}; trying again in {seconds:.0f} s")

    def answer(self, content: Row, text: str) -> None:
        """What was asked for: as it came, or in words."""
        if self._form == "json":
            print(json.dumps(content))
        elif self._form in ("csv", "markdown"):
            plain = {name: value for name, value in content.items() if not isinstance(value, dict | list)}
            self.rows([plain], tuple(plain))
        else:
            self._console.print("\n".join(printable(line) for line in text.split("\n")), markup=False)

    @property
    def form(self) -> str | None:
        """The format that was asked for."""
        return self._form

    @property
    def as_json(self) -> bool:
        """Whether it is for programs."""
        return self._form == "json"

    @property
    def lists_json(self) -> bool:
        """Whether listings are: so is what goes into a file or a pipe, unless another format is asked for."""
        return self._form == "json" or (self._form is None and not sys.stdout.isatty())

    def rows(
        self, rows: Iterable[Row], columns: Sequence[str], *, all_columns: bool = False, otherwise: str | None = None
    ) -> None:
        """A listing: the columns of a table; csv has all that there are, if `all_columns`. Where no format is asked for
        it is `otherwise`, or a table on a terminal and else one JSON object a line."""
        form = self._form or otherwise or ("json" if self.lists_json else "table")
        if form == "json":
            for row in rows:
                print(json.dumps(row))
        elif form == "csv":
            self._csv(iter(rows), columns, all_columns)
        else:
            listed = list(rows)
            names = [name for name in columns if any(row.get(name) is not None for row in listed)] or columns[:1]
            cells = [[_cell(row.get(name)) for name in names] for row in listed]
            self._table(names, cells) if form == "table" else self._markdown(names, cells)

    def _csv(self, rows: Iterator[Row], columns: Sequence[str], all_columns: bool) -> None:
        first = next(rows, None)
        names = tuple(first) if first is not None and all_columns else columns
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        for row in itertools.chain([] if first is None else [first], rows):
            writer.writerow([_safe(row.get(name)) for name in names])

    def _table(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(box=None)
        for name in names:
            left = name in ("caption", "name", "reason", "based on")
            table.add_column(name, overflow="ellipsis", no_wrap=True, justify="left" if left else "right")
        for row in rows:
            table.add_row(*(cell.replace("[", "\\[") for cell in row))
        self._console.print(table)

    def _markdown(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        for row in [names, ["---"] * len(names), *rows]:
            print("| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row) + " |")

    @contextmanager
    def following(self) -> Iterator[Callable[[Job | Event], None]]:
        """Show a job as it goes on."""
        self.when_stopped = "stopped watching; the job goes on"
        if self._form == "json":
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

                def move(job: Job | Event) -> None:
                    state = job["progress"]
                    done, total, unit = (state["done"], state["total"], state["unit"]) if state else (0, 0, "")
                    of = f"{done}/{total} {unit}" if total else ""
                    name = job["phase"] or job["status"]
                    progress.update(bar, description=name, completed=done, total=total or None, of=of)

                yield move
        else:
            last = ""

            def line(job: Job | Event) -> None:
                nonlocal last
                now = f"{job['status']} {job['phase'] or ''}".strip()
                if now != last:
                    self.say(now)
                last = now

            yield line

    @contextmanager
    def transferring(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show how many bytes have gone or come, of what can go on where it stopped."""
        before = self.when_stopped
        self.when_stopped = "stopped; the same command goes on from here"
        if self._form == "json" or not self._err.is_terminal:
            began = self._form == "json"

            def begin(_done: int, _total: int) -> None:
                nonlocal began
                if not began:
                    self.say(what)
                began = True

            yield begin
        else:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            with Progress(*columns, console=self._err, transient=True) as progress:
                bar = progress.add_task(printable(what).replace("[", "\\["), total=None)
                yield lambda done, total: progress.update(bar, completed=done, total=total or None)
        self.when_stopped = before


def printable(text: str) -> str:
    """Text of strangers: a control character could move the cursor or change colours."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else printable(_text(value))[:_LONGEST_CELL]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _safe(value: Any) -> str:
    """A cell of csv that no spreadsheet takes for a formula, as in the exports of the service."""
    text = "" if value is None else _text(value)
    return "'" + text if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
