"""`ecif results`, `export`, `report` and `diff`: what a job came to."""

import tempfile
import webbrowser
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from ecif_client._sync.client import Client
from ecif_client.answers import Result
from ecif_client.cli.parameters import command, number_of, page_of
from ecif_client.cli.showing import Shown
from ecif_client.errors import UsageError

_COLUMNS = (
    "rank", "query", "key", "caption", "suspicion", "influence", "relative_influence", "self_influence", "clip_score",
    "flagged", "better_caption", "exchanged_with",
)  # fmt: skip
_CHANGES = ("verdict", "key", "caption", "rank", "rank_before", "suspicion", "suspicion_before")


@command("results")
@click.argument("job")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="0 for all.")
@click.option("--sort", metavar="SCORE", help="Any score; `rank` otherwise.")
@click.option("--order", type=click.Choice(("asc", "desc")))
@click.option("--flagged", is_flag=True, help="Only the pairs to drop.")
@click.option("--rate", type=float, help="Flag at this false discovery rate, not at that of the job.")
@click.option("--key", help="Only the pair of this key.")
@click.option("--query", help="Of a traceback: only the pairs of this query.")
@click.option("--caption", metavar="TEXT", help="Only pairs whose caption holds this, in any case.")
@click.option("--columns", metavar="NAME,…", help="Only these fields of each pair.")
@click.option(
    "--min", "least", multiple=True, metavar="SCORE=NUMBER", help="Only pairs with at least this; may repeat."
)
@click.option("--max", "most", multiple=True, metavar="SCORE=NUMBER", help="Only pairs with at most this; may repeat.")
def results(
    client: Client,
    shown: Shown,
    job: str,
    limit: int,
    flagged: bool,
    columns: str | None,
    least: tuple[str, ...],
    most: tuple[str, ...],
    **question: Any,
) -> None:
    """Show the pairs to look at first."""
    bounds = _bounds("--min", least) | _bounds("--max", most)
    named = tuple(name.strip() for name in columns.split(",")) if columns else None
    rows = client.results(
        job, flagged=True if flagged else None, columns=named, limit=page_of(limit), **bounds, **question
    )
    shown.rows(islice(rows, limit or None), named or _COLUMNS, all_columns=named is None)


def _bounds(option: str, given: tuple[str, ...]) -> dict[str, Any]:
    """`SCORE=NUMBER` as the parameters of a question."""
    bounds: dict[str, Any] = {}
    for text in given:
        score, _, value = text.partition("=")
        number = number_of(value)
        if not score or number is None:
            raise UsageError(f"{option}: {text!r} is no bound such as clip_score=0.2")
        bounds[f"{option[2:]}_{score}"] = number
    return bounds


@command("export", formats=False)
@click.argument("job")
@click.option(
    "--format",
    "format_",
    default="csv",
    show_default=True,
    metavar="FORMAT",
    help="csv, jsonl, parquet, npy, webdataset, open_clip or verdicts.",
)
@click.option("--keep", default="all", show_default=True, type=click.Choice(("all", "clean", "flagged")))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, metavar="FILE")
def export(client: Client, shown: Shown, job: str, format_: str, keep: str, output: Path) -> None:  # fmt: skip
    """Write the pairs to a file.

    What was stopped goes on where it stopped: its beginning lies beside FILE, in a file that ends in .part.
    """
    with shown.transferring(f"writing {output}") as seen:
        size = client.export(job, output, format=format_, keep=keep, seen=seen)
    shown.answer({"file": str(output), "bytes": size}, f"{output}: {size:,} bytes")


@command("report")
@click.argument("job")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Keep the page there.")
@click.option("--no-open", is_flag=True, help="Only say where the page is.")
def report(client: Client, shown: Shown, job: str, save: Path | None, no_open: bool) -> None:
    """Open the report of a job.

    Its worst and best pairs as pictures, what to be warned of, and what to do next: one page that needs nothing else.
    """
    page = client.report(job)
    path = save or Path(tempfile.mkdtemp(prefix="ecif-")) / f"{job}.html"
    path.write_text(page, encoding="utf-8")
    if not no_open and not webbrowser.open(path.absolute().as_uri()):
        shown.say("no browser could be opened: open the file yourself")
    shown.answer({"file": str(path)}, str(path))


@command("diff")
@click.argument("before")
@click.argument("after")
def diff(client: Client, shown: Shown, before: str, after: str) -> None:
    """Compare the verdicts of two jobs.

    Shows the pairs that job AFTER flags and job BEFORE did not, and the other way round, by their keys.
    """
    for job in (before, after):
        state = client.job(job)
        if state["task"] != "misalignment":
            raise UsageError(f"job {job} is a {state['task']}: it flags nothing, so there are no verdicts to compare")
    earlier = {row["key"]: row for row in client.results(before)}
    counts = {"flagged": 0, "cleared": 0, "new": 0, "gone": 0}

    def changes() -> Iterator[dict[str, Any]]:
        for row in client.results(after):
            was = earlier.pop(row["key"], None)
            verdict = _verdict(was, row)
            if verdict:
                counts[verdict] += 1
            if verdict in ("flagged", "cleared"):
                yield _change(verdict, was, row)
        counts["gone"] = len(earlier)

    shown.rows(changes(), _CHANGES)
    shown.say(
        f"{counts['flagged']} newly flagged, {counts['cleared']} no longer; "
        f"{counts['gone']} pairs only in {before}, {counts['new']} only in {after}"
    )


def _verdict(was: Result | None, row: Result) -> str | None:
    if was is None:
        return "new"
    if was["flagged"] == row["flagged"]:
        return None
    return "flagged" if row["flagged"] else "cleared"


def _change(verdict: str, was: Result | None, row: Result) -> dict[str, Any]:
    shared = {"verdict": verdict, "key": row["key"], "caption": row["caption"]}
    now = {"rank": row["rank"], "suspicion": row["suspicion"]}
    then = {f"{name}_before": was[name] if was else None for name in now}  # type: ignore[literal-required]
    return {**shared, **now, **then}
