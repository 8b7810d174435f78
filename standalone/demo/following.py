"""Showing how far a job is: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Json = dict[str, Any]

_LINE_SECONDS = 5.0


def show(jobs: Iterable[Json], console: Console) -> Json:
    """Follow a job through its phases; returns it as it was seen last."""
    return _bars(jobs, console) if console.is_terminal else _lines(jobs, console)


def _bars(jobs: Iterable[Json], console: Console) -> Json:
    columns = (TextColumn("  {task.description:<10}"), BarColumn(40), TextColumn("{task.fields[count]}"))
    seen: Json = {}
    bars: dict[str, TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for seen in jobs:
            phase, done, total = _place(seen)
            if phase not in bars:
                for bar in bars.values():  # an earlier phase is done, also if its end was never seen
                    progress.update(bar, total=1, completed=1, count="")
                    progress.stop_task(bar)
                bars[phase] = progress.add_task(phase, total=None, count="")
            count = _count(seen)
            progress.update(bars[phase], total=total or None, completed=done, count=count)
        for bar in bars.values():
            progress.stop_task(bar)
    return seen


def _lines(jobs: Iterable[Json], console: Console) -> Json:
    seen: Json = {}
    shown, shown_at = ("", ""), 0.0
    for seen in jobs:
        now = (_place(seen)[0], _count(seen))
        # A log wants a line for each phase, and a sign of life in a long one.
        if now[0] != shown[0] or (now != shown and time.monotonic() - shown_at > _LINE_SECONDS):
            console.print(f"  {now[0]:<10} {now[1]}".rstrip(), highlight=False)
            shown, shown_at = now, time.monotonic()
    return seen


def _place(job: Json) -> tuple[str, int, int]:
    progress = job["progress"] or {}
    return job["phase"] or job["status"], progress.get("done", 0), progress.get("total", 0)


def _count(job: Json) -> str:
    progress = job["progress"] or {}
    return f"{progress['done']} of {progress['total']} {progress['unit']}" if progress.get("total") else ""
