"""The attribution table as a picture: LDS of every method in every setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import pyplot as plt

from benchmarks.attribution.page import figure, is_ours, names, settings, title
from benchmarks.sections import Measured


def agreement(pieces: Mapping[str, Measured]) -> Any:
    """A panel for each setting, methods from the best down; lines are intervals over the sets. Blue: ours."""
    every = settings(one for piece in pieces.values() for one in piece.results["settings"])
    most = max(len(names(seeds)) for seeds in every)
    drawn, axes = plt.subplots(1, len(every), figsize=(4.6 * len(every), 0.26 * most + 1.2), squeeze=False)
    for axis, seeds in zip(axes[0], every, strict=True):
        ordered = sorted(names(seeds), key=lambda name: figure(seeds, name, "retrained", "lds") or -1.0)
        for place, name in enumerate(ordered):
            value, low, high = (figure(seeds, name, "retrained", what) for what in ("lds", "low", "high"))
            if value is None:
                continue
            color = "#1f5fa8" if is_ours(seeds, name) else "#c2571a"
            axis.plot([low, high], [place, place], color=color, lw=1.2)
            axis.plot(value, place, "o", color=color, ms=5)
        axis.set_yticks(range(len(ordered)), ordered, fontsize=7)
        axis.set_title(title(seeds), fontsize=9)
        axis.axvline(0, color="#bbbbbb", lw=0.8)
        axis.set_xlabel("LDS against retraining with the same seed; blue: ours", fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    drawn.tight_layout()
    return drawn
