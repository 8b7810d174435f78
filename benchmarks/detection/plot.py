"""The detection table as a picture: where each column is ahead of suspicion, and where behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from benchmarks.detection.figures import of_pieces, peers
from benchmarks.sections import Measured

_MOST: Final = 0.2
"""Leads of more are as red or blue as this one."""


def leads(pieces: Mapping[str, Measured]) -> Any:
    """Settings down, columns across. Colour: the lead over suspicion. Number: AUROC. Framed: the best."""
    every = of_pieces(pieces)
    theirs = list(dict.fromkeys(name for setting in every for name in peers(setting)))
    ours = [name for name in dict.fromkeys(name for setting in every for name in setting.columns) if name not in theirs]
    names = [*ours, *theirs]
    values = np.full((len(every), len(names)), np.nan)
    for row, setting in enumerate(every):
        for place, name in enumerate(names):
            if name in setting.columns:
                values[row, place] = setting.lead(name).value
    figure, axis = plt.subplots(figsize=(0.62 * len(names) + 2.6, 0.27 * len(every) + 1.9))
    axis.imshow(values, cmap="RdBu_r", vmin=-_MOST, vmax=_MOST, aspect="auto")
    for row, setting in enumerate(every):
        best = max(setting.columns, key=setting.auroc)
        for place, name in enumerate(names):
            if name not in setting.columns:
                continue
            dark = abs(values[row, place]) > 0.7 * _MOST
            axis.text(
                place,
                row,
                f"{setting.auroc(name):.2f}"[1:] if setting.auroc(name) < 0.995 else "1.0",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "#222222",
            )
            if name == best:
                frame = Rectangle((place - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#222222", lw=1.4)
                axis.add_patch(frame)
    axis.axvline(len(ours) - 0.5, color="#222222", lw=1.2)
    for row in range(1, len(every)):
        if every[row].cell.kind != every[row - 1].cell.kind:
            axis.axhline(row - 0.5, color="#222222", lw=1.2)
    axis.set_xticks(range(len(names)), names, rotation=55, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(every)), [setting.cell.setting for setting in every])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(
        "AUROC; red: ahead of suspicion, blue: behind it; framed: the best of a row. Right of the line: of others"
    )
    figure.tight_layout()
    return figure
