"""`make bench`: measure, keep the figures, draw them, write the page, print what was hoped for beside what came out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks import goals, page, plots
from benchmarks.measuring import machine_facts
from benchmarks.sections import HOME, SECTIONS, Json, Measured, Section, read_data, read_one, write_data

_MET = {True: "yes", False: "NO", None: ""}


def main(arguments: list[str]) -> int:
    """Run it; the exit status is 0 whether or not a goal is met: figures are reported, not asserted."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"any of {', '.join(names)}; default: all")
    parser.add_argument("--toy", action="store_true", help="the smallest sizes, whose figures mean nothing; needs --to")
    parser.add_argument("--to", type=Path, default=HOME, help="folder for data, plots and README.md")
    pieced = {section.name: section for section in SECTIONS if section.pieces}
    pieces = "; ".join(f"{name}: {', '.join(section.pieces)}" for name, section in pieced.items())
    parser.add_argument("--piece", help=f"go on with one piece of a section that takes hours ({pieces})")
    given = parser.parse_args(arguments)
    unknown = set(given.sections) - set(names)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if given.toy and given.to == HOME:
        parser.error("--toy would overwrite the real figures: name another folder with --to")
    if given.piece is not None:
        if len(given.sections) != 1 or given.piece not in getattr(pieced.get(given.sections[0]), "pieces", ()):
            parser.error(f"--piece goes with one section and one of its pieces ({pieces})")
        measure_piece(pieced[given.sections[0]], given.piece, given.to)
        return 0
    measure(given.sections or names, given.to, toy=given.toy)
    return 0


def measure_piece(section: Section, piece: str, folder: Path) -> None:
    """Go on with a piece, keep every figure as it comes, and bring plots and page up to date."""
    console, begin, name = Console(highlight=False), perf_counter(), f"{section.name}_{piece}"
    before, facts = read_one(folder, name), machine_facts()
    minutes = before.minutes if before else 0.0

    def keep(results: Json) -> None:
        write_data(folder, name, Measured(results, facts, minutes + (perf_counter() - begin) / 60))

    section.run_piece(piece, before.results if before else None, keep, lambda line: _say(console, begin, line))
    console.print(f"The page: {_redraw(folder)[1]}", soft_wrap=True)


def measure(names: list[str], folder: Path, *, toy: bool = False) -> None:
    """Run the named sections, in the order of the page, and bring plots and page up to date."""
    console = Console(highlight=False)
    begin = perf_counter()
    for section in SECTIONS:
        if section.name not in names:
            continue
        facts, start = machine_facts(), perf_counter()
        console.print(f"[bold]{section.title}[/bold]")
        results = section.run("toy" if toy else "full", lambda line: _say(console, begin, line))
        minutes = (perf_counter() - start) / 60
        write_data(folder, section.name, Measured(results, facts, minutes))
    measured, written = _redraw(folder)
    rows = Table("", "hoped for", "measured", "met")
    for goal in goals.goals(measured):
        rows.add_row(goal.what.replace("`", ""), goal.hoped, goal.measured, _MET[goal.met])
    console.print(rows)
    console.print(f"{(perf_counter() - begin) / 60:.0f} minutes. The page: {written}", soft_wrap=True)


def _redraw(folder: Path) -> tuple[dict[str, Measured], Path]:
    """Bring plots and pages up to date: (what has been measured, the page)."""
    measured = read_data(folder)
    plots.draw(folder, measured)
    return measured, page.write(folder, measured)


def _say(console: Console, begin: float, line: str) -> None:
    console.print(f"  {(perf_counter() - begin) / 60:5.1f} min  {line}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
