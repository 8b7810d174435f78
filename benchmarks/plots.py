"""Pictures of the figures: PNG, one function for each."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.attribution import plot as attribution
from benchmarks.detection import plot as detection
from benchmarks.goals import scores_of
from benchmarks.sections import SECTIONS, Json, Measured, read_pieces

_INK, _FAINT, _BLUE, _ORANGE, _GREEN = "#222222", "#9a9a9a", "#1f6fb4", "#d1661c", "#3a8a4d"
_STYLE: Final[Any] = {
    "figure.dpi": 130,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
ORDER: Final = (
    "hessian",
    "gauss_newton",
    "ekfac + 4 passes",
    "blocks",
    "ekfac",
    "projected",
    "identity",
)
NAMES: Final = {"blocks": "gauss_newton, no cross blocks"}


def draw(folder: Path, data: Mapping[str, Measured]) -> list[Path]:
    """Every plot whose section has been measured, into `folder`/plots."""
    made = []
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, (section, plot) in PLOTS.items():
            if section in data:
                made.append(_save(plot(data[section].results), folder, name))
        pieces = {section.name: read_pieces(folder, section) for section in SECTIONS}
        made += [_save(OF_PIECES[name](measured), folder, name) for name, measured in pieces.items() if measured]
    return made


def _save(figure: Any, folder: Path, name: str) -> Path:
    path = folder / "plots" / f"{name}.png"
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return path


def _scores(results: Json) -> Any:
    settings = results["settings"]
    figure, axes = plt.subplots(1, len(settings), figsize=(11.5, 3.7), sharey=True, squeeze=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        about = setting["title"].partition(" (")[2].rstrip(")").replace("`", "")
        axis.set_title(setting["name"] + "\n" + textwrap.fill(about, 42), fontsize=8.5)
        for place, curvature in enumerate(reversed(ORDER)):
            rows = scores_of(setting, curvature)
            if not rows:
                axis.annotate("the same as gauss_newton here", (0.27, place), color=_FAINT, va="center", fontsize=8)
                continue
            low, high = mean(row["low"] for row in rows), mean(row["high"] for row in rows)
            middle = mean(row["spearman"] for row in rows)
            axis.plot([low, high], [place, place], color=_FAINT, lw=1.5, zorder=1)
            seen = [row["spearman"] for row in rows]
            axis.scatter(seen, [place] * len(rows), s=12, color=_BLUE, alpha=0.5, lw=0, zorder=2)
            axis.scatter([middle], [place], s=42, color=_BLUE, zorder=3)
            over = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            axis.annotate(
                f"{middle:.3f}", (middle, place + 0.22), ha="center", va="bottom", fontsize=8, bbox=over, zorder=2
            )
        axis.axvline(0.95, color=_ORANGE, lw=0.8, ls=":")
        axis.set_xlim(0.15, 1.04)
        axis.set_ylim(-0.5, len(ORDER) - 0.3)
        axis.set_yticks(range(len(ORDER)), [NAMES.get(name, name) for name in reversed(ORDER)])
        axis.tick_params(left=False)
        axis.set_xlabel("linear datamodelling score")
    axes[0][0].annotate("0.95", (0.94, -0.42), ha="right", color=_ORANGE, fontsize=8)
    figure.tight_layout(w_pad=1.5)
    return figure


def _changes(results: Json) -> Any:
    settings, shown = results["settings"], ("gauss_newton", "ekfac")
    figure, axes = plt.subplots(len(shown), len(settings), figsize=(10, 6.4), squeeze=False)
    for column, setting in enumerate(settings):
        first = setting["seeds"][0]
        actual = [1000 * value for value in first["actual"]]
        for row, curvature in enumerate(shown):
            axis = axes[row][column]
            predicted = [1000 * value for value in first["predicted"][curvature]]
            score = scores_of(setting, curvature)[0]
            axis.axhline(0, color=_FAINT, lw=0.5)
            axis.axvline(0, color=_FAINT, lw=0.5)
            axis.axline((0, 0), slope=1, color=_ORANGE, lw=1)
            axis.scatter(predicted, actual, s=11, color=_BLUE, alpha=0.7, lw=0)
            axis.set_title(f"{setting['name']}, {curvature}")
            axis.annotate(
                f"LDS {score['spearman']:.3f}\nslope {score['slope']:.2f}",
                (0.04, 0.97),
                xycoords="axes fraction",
                va="top",
            )
            if row == len(shown) - 1:
                axis.set_xlabel("predicted change of L_val, thousandths")
            if not column:
                axis.set_ylabel("change of L_val in the refit, thousandths")
    axes[0][0].annotate("as predicted", (0.97, 0.42), xycoords="axes fraction", ha="right", color=_ORANGE)
    figure.tight_layout()
    return figure


def _ratios(results: Json) -> Any:
    heads, tiny, large = results["heads"], results["all_tiny"], results["all_large"]
    bars = [
        ("scoring, every weight of tiny", tiny["ratio"], 3.5),
        (f"  … along the {tiny['directions_of_a_job']} directions of a job", tiny["ratio_job"], None),
        ("  … by explicit per-pair gradients", tiny["ratio_explicit"], None),
        ("scoring, every weight of ViT-B/32", large["ratio"], 3.5),
        ("whole job on the heads of ViT-B/32", heads["ratio"], 1.15),
    ]
    figure, axis = plt.subplots(figsize=(8, 2.9))
    for place, (_, value, goal) in enumerate(reversed(bars)):
        axis.barh(place, value, height=0.6, color=_BLUE if goal else _FAINT)
        axis.annotate(f"{value:.3g}", (value * 1.04, place), va="center")
        if goal:
            axis.plot([goal, goal], [place - 0.42, place + 0.42], color=_ORANGE, lw=2)
            axis.annotate(f"goal {goal:g}", (goal, place + 0.42), ha="center", va="bottom", color=_ORANGE, fontsize=7.5)
    axis.set_yticks(range(len(bars)), [name for name, *_ in reversed(bars)])
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(value for _, value, _ in bars) * 1.8)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("times a plain embedding pass over the same pairs (logarithmic)")
    axis.tick_params(left=False)
    figure.tight_layout()
    return figure


def _memory(results: Json) -> Any:
    sizes = results["sizes"]
    counts = [one["pairs"] for one in sizes]
    figure, axis = plt.subplots(figsize=(7, 3.4))
    ends = []
    for phase in sizes[-1]["phases"]:
        peaks = [one["phases"][phase] for one in sizes]
        axis.plot(counts, peaks, color=_FAINT, lw=1, marker="o", ms=3)
        ends.append((peaks[-1], phase))
    peaks = [one["peak_mib"] for one in sizes]
    axis.plot(counts, peaks, color=_BLUE, lw=2, marker="o", ms=5)
    axis.annotate("whole job", (counts[0], peaks[0]), xytext=(0, 7), textcoords="offset points", color=_BLUE)
    bare = mean(one["bare_mib"] for one in sizes)
    axis.axhline(bare, color=_ORANGE, lw=0.8, ls=":")
    axis.annotate("a worker that has done nothing yet", (counts[0], bare * 0.98), va="top", color=_ORANGE, fontsize=8)
    top = max(peaks) * 1.15
    spaced = -top
    for value, phase in sorted(ends):
        spaced = max(value, spaced + 0.05 * top)
        axis.annotate(phase, (counts[-1] * 1.08, spaced), va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(counts[0] * 0.85, counts[-1] * 1.9)
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.minorticks_off()
    axis.set_ylim(0, max(top, spaced * 1.05))
    axis.set_xlabel(f"pairs, {results['width']} wide (logarithmic)")
    axis.set_ylabel("peak resident memory, MiB")
    figure.tight_layout()
    return figure


PLOTS: Final[dict[str, tuple[str, Callable[[Json], Any]]]] = {
    "scores": ("fidelity", _scores),
    "changes": ("fidelity", _changes),
    "ratios": ("cost", _ratios),
    "memory": ("memory", _memory),
}
"""File name: the section whose figures it shows, and what draws it."""

OF_PIECES: Final[dict[str, Callable[[Mapping[str, Measured]], Any]]] = {
    "detection": detection.leads,
    "attribution": attribution.agreement,
}
"""What draws a section that comes in pieces; the file has its name."""
