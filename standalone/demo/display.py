"""What the demo shows: how far the job is (bars on a terminal, plain lines elsewhere), and the outcome."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from standalone.demo.digits import Pair
from standalone.demo.measure import SCORES, Findings

Json = dict[str, Any]

_LINE_SECONDS = 5.0


def show_progress(jobs: Iterable[Json], console: Console) -> Json:
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


def pairs_table(rows: Sequence[Json], pairs: Mapping[str, Pair]) -> Table:
    """The most suspicious pairs, with what the demo knows and the service does not."""
    # Eighty columns hold it: the headline of the first command that anybody runs must not be cut.
    table = Table(
        title="The pairs to look at first",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name in ("rank", "caption", "shows", "suspicion", "influence", "clip_score", "planted"):
        table.add_column(name, justify="left" if name == "caption" else "right", no_wrap=True)
    for row in rows:
        pair = pairs[row["key"]]
        table.add_row(
            str(row["rank"]),
            row["caption"],
            str(pair.digit),
            _number(row["suspicion"]),
            "" if row["influence"] is None else f"{row['influence']:+.1e}",
            _number(row["clip_score"]),
            "yes" if pair.planted else "no",
        )
    return table


def findings_table(findings: Findings) -> Table:
    """How well each score tells planted pairs from clean ones."""
    table = Table(title="Found by one score alone", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("score")
    table.add_column("bad when")
    table.add_column("AUROC", justify="right")
    for name, value in findings.auroc.items():
        table.add_row(name, "high" if SCORES[name] > 0 else "low", _number(value))
    return table


def phases_table(summary: Json) -> Table:
    """Where the time went."""
    table = Table(title="Where the time went", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("pairs/s", justify="right")
    phases = summary.get("phases") or []
    for phase in phases:
        rate = phase.get("pairs_per_second")
        table.add_row(phase["phase"], f"{phase['seconds']:.1f}", "" if rate is None else f"{rate:,.0f}")
    table.add_row("together", f"{sum(phase['seconds'] for phase in phases):.1f}", "")
    return table


def sentences(findings: Findings, summary: Json) -> list[str]:
    """The findings in words."""
    share = findings.planted / findings.pairs if findings.pairs else 0.0
    lines = [
        f"{findings.planted} of {findings.pairs} captions ({share:.0%}) were swapped on purpose.",
        *(
            f"Among the first {depth} of the ranking, {hits} were: {hits / depth:.0%}."
            for depth, hits in findings.planted_at.items()
        ),
    ]
    if findings.flagged:
        precision = findings.flagged_planted / findings.flagged
        recall = findings.flagged_planted / max(findings.planted, 1)
        lines.append(
            f"{findings.flagged} pairs were flagged: {precision:.0%} of them rightly; {recall:.0%} of all found."
        )
    else:
        lines.append("No pair was flagged.")
    if summary.get("ranked_by"):
        lines.append(f"Ranked by {summary['ranked_by']}.")
    return lines + [f"Warning: {warning}" for warning in summary.get("warnings") or []]


def show_outcome(
    console: Console, rows: Sequence[Json], pairs: Mapping[str, Pair], findings: Findings, summary: Json
) -> None:
    """Print it all. `rows` are those of the first table."""
    for table in (pairs_table(rows, pairs), findings_table(findings), phases_table(summary)):
        console.print()
        console.print(table)
    console.print()
    for line in sentences(findings, summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
