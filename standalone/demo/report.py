"""What the demo says at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from standalone.demo.digits import Pair
from standalone.demo.measure import SCORES, Findings

Json = dict[str, Any]


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


def findings_table(found: Findings) -> Table:
    """How well each score tells planted pairs from clean ones."""
    table = Table(title="Found by one score alone", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("score")
    table.add_column("bad when")
    table.add_column("AUROC", justify="right")
    for name, value in found.auroc.items():
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


def sentences(found: Findings, summary: Json) -> list[str]:
    """The findings in words."""
    share = found.planted / found.pairs if found.pairs else 0.0
    lines = [
        f"{found.planted} of {found.pairs} captions ({share:.0%}) were swapped on purpose.",
        *(
            f"Among the first {depth} of the ranking, {hits} were: {hits / depth:.0%}."
            for depth, hits in found.found_at.items()
        ),
    ]
    if found.flagged:
        precision, recall = found.flagged_planted / found.flagged, found.flagged_planted / max(found.planted, 1)
        lines.append(f"{found.flagged} pairs were flagged: {precision:.0%} of them rightly; {recall:.0%} of all found.")
    else:
        lines.append("No pair was flagged.")
    if summary.get("ranked_by"):
        lines.append(f"Ranked by {summary['ranked_by']}.")
    return lines + [f"Warning: {warning}" for warning in summary.get("warnings") or []]


def show(console: Console, rows: Sequence[Json], pairs: Mapping[str, Pair], found: Findings, summary: Json) -> None:
    """Print it all. `rows` are those of the first table."""
    for table in (pairs_table(rows, pairs), findings_table(found), phases_table(summary)):
        console.print()
        console.print(table)
    console.print()
    for line in sentences(found, summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
