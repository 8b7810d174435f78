"""Draws the pictures of docs/scores.md and the screenshot of the README, from the job of `make demo`:
`.venv/bin/python docs/pictures/make.py` starts a service, runs it (minutes) and writes beside this file. The
screenshot is taken where there is a `chromium`; `ECIF_URL` names a service that runs already."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from ecif_client import Client
from standalone.demo import digits
from standalone.demo.digits import Plan
from standalone.stack import Stack

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RIGHT, WRONG = "#4c78a8", "#e45756"
plt.rcParams |= {
    "svg.hashsalt": "ecif",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def service(folder: Path) -> Iterator[str]:
    if "ECIF_URL" in os.environ:
        yield os.environ["ECIF_URL"]
    else:
        with Stack(folder / "service") as stack:
            yield stack.url


def run(ecif: Client, folder: Path) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """The demo's job: its id, summary, and rows with `planted`."""
    plan = Plan()
    data = digits.load(plan)
    sets = []
    for name, pairs in (("digits", data.training), ("digits-clean", data.validation)):
        (folder / f"{name}.zip").write_bytes(digits.archive(pairs, plan))
        sets.append(ecif.upload(folder / f"{name}.zip")["id"])
    job = ecif.wait(ecif.submit(plan.specification(*sets), idempotency_key="pictures/" + sets[0])["id"])
    planted = {pair.key for pair in data.training if pair.planted}
    rows = [{**row, "planted": row["key"] in planted} for row in ecif.results(job["id"], limit=500)]
    return job["id"], job["summary"], rows


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def column(rows: list[dict[str, Any]], name: str, planted: bool) -> np.ndarray[Any, Any]:
    return np.array([row[name] for row in rows if row["planted"] is planted], dtype=float)


def suspicion(rows: list[dict[str, Any]]) -> None:
    """Two heaps, and where flags begin."""
    figure, axes = plt.subplots(figsize=(5.6, 2.6))
    edges = np.linspace(*np.percentile([row["suspicion"] for row in rows], [0, 100]), 40)
    axes.hist(column(rows, "suspicion", False), edges, color=RIGHT, alpha=0.8, label="caption is right")
    axes.hist(column(rows, "suspicion", True), edges, color=WRONG, alpha=0.8, label="caption was swapped")
    flagged = [row["suspicion"] for row in rows if row["flagged"]]
    if flagged:
        axes.axvline(min(flagged), color="black", linewidth=1, linestyle="--", label="flagged from here on")
    axes.set(xlabel="suspicion", ylabel="pairs", yscale="symlog")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    save(figure, "suspicion")


def influence(rows: list[dict[str, Any]]) -> None:
    """The same pairs by both scores: they answer two questions."""
    figure, axes = plt.subplots(figsize=(5.6, 3.0))
    for planted, colour, label in ((False, RIGHT, "caption is right"), (True, WRONG, "caption was swapped")):
        x, y = column(rows, "suspicion", planted), column(rows, "influence", planted)
        axes.scatter(x, y, s=6, color=colour, alpha=0.6, linewidths=0, label=label, rasterized=True)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="suspicion", ylabel="influence\n(below 0: harmful)")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.legend(frameon=False)
    save(figure, "influence")


def rates(rows: list[dict[str, Any]]) -> None:
    """What a false discovery rate promises, and what came of it in this run."""
    figure, axes = plt.subplots(figsize=(5.6, 2.6))
    given = np.linspace(0.01, 0.5, 50)
    flagged = [[row for row in rows if row["q_value"] is not None and row["q_value"] <= rate] for rate in given]
    false = [np.mean([not row["planted"] for row in some]) if some else 0 for some in flagged]
    total = sum(row["planted"] for row in rows)
    axes.plot(
        given,
        [sum(row["planted"] for row in some) / total for some in flagged],
        color=WRONG,
        label="of all wrong pairs, flagged",
    )
    axes.plot(given, false, color=RIGHT, label="of the flagged pairs, right ones")
    axes.plot(given, given, color="grey", linewidth=0.8, linestyle=":", label="the promise: at most so many")
    axes.set(xlabel="false discovery rate that was asked for", ylabel="share", ylim=(0, 1.02))
    axes.legend(frameon=False, loc="center right")
    save(figure, "rates")


def screenshot(report: str, folder: Path) -> None:
    if (chromium := shutil.which("chromium")) is None:
        return
    page = folder / "report.html"
    page.write_text(report)
    picture = HERE / "report.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        "--window-size=1100,820",
        f"--user-data-dir={folder / 'chromium'}",
    ]
    subprocess.run([chromium, *options, f"--screenshot={picture}", page.as_uri()], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, service(Path(temporary)) as url, Client(url) as ecif:
        job, summary, rows = run(ecif, Path(temporary))
        wrong = sum(row["planted"] for row in rows if row["flagged"])
        swapped, flagged = sum(row["planted"] for row in rows), summary["counts"]["flagged"]
        sys.stdout.write(f"{len(rows)} pairs, {swapped} swapped; {flagged} flagged, {wrong} of them rightly\n")
        suspicion(rows)
        influence(rows)
        rates(rows)
        screenshot(ecif.report(job), Path(temporary))


if __name__ == "__main__":
    main()
