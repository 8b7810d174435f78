"""Figures of single seeds → figures of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean
from typing import Final

from benchmarks.detection.cells import KEPT_APART_KIND, Cell
from benchmarks.detection.columns import NO_CLEAN, NO_FIT, OURS
from benchmarks.sections import Json, Measured

SUSPICIONS: Final = ("suspicion", NO_CLEAN, NO_FIT)
_MATTERS: Final = 0.003
"""A smaller lead is none, however sure it is."""


@dataclass(frozen=True)
class Lead:
    """By how much a column's AUROC is above that of suspicion, with its 95 % interval over resampled pairs."""

    column: str
    value: float
    error: float

    @property
    def low(self) -> float:
        """Of the interval."""
        return self.value - 1.96 * self.error

    @property
    def high(self) -> float:
        """Of the interval."""
        return self.value + 1.96 * self.error

    @property
    def sure(self) -> bool:
        """The column is better, by what matters."""
        return self.value > _MATTERS and self.low > 0

    @property
    def surely_behind(self) -> bool:
        """Suspicion is better, by what matters."""
        return self.value < -_MATTERS and self.high < 0


@dataclass(frozen=True)
class SettingFigures:
    """The seeds of one setting. seeds: what `measure` gave for each."""

    cell: Cell
    seeds: Sequence[Json]

    @property
    def columns(self) -> list[str]:
        """That all seeds have, ours first."""
        names = set.intersection(*(set(seed["columns"]) for seed in self.seeds))
        ordered = dict.fromkeys(name for seed in self.seeds for name in seed["columns"])
        return [name for name in ordered if name in names]

    def mean(self, column: str, figure: str) -> float | None:
        """Over the seeds; of `false_discovery` over those in which anything was flagged, None where it never was."""
        return _mean_of_known(seed["columns"][column][figure] for seed in self.seeds)

    def auroc(self, column: str) -> float:
        """The mean over the seeds."""
        return mean(float(seed["columns"][column]["auroc"]) for seed in self.seeds)

    def flags(self, kind: str, figure: str) -> float | None:
        """Of the flags that the job itself has set."""
        return _mean_of_known(seed["flags"][kind][figure] for seed in self.seeds if kind in seed["flags"])

    def lead(self, column: str) -> Lead:
        """Its mean over the seeds; the error is of the pairs that were drawn, the settings being the same."""
        rows = [seed["columns"][column] for seed in self.seeds]
        error = sqrt(sum(row["lead_error"] ** 2 for row in rows)) / len(rows)
        return Lead(column, mean(row["lead"] for row in rows), error)

    def best(self, of: Iterable[str]) -> Lead | None:
        """The column of these with the highest AUROC."""
        there = [name for name in of if name in self.columns]
        return self.lead(max(there, key=self.auroc)) if there else None

    @property
    def kept_apart(self) -> bool:
        """Nothing is tuned on it."""
        return self.cell.kind == KEPT_APART_KIND


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def of_pieces(pieces: Mapping[str, Measured]) -> list[SettingFigures]:
    """All settings of the pieces that hold some: those of one kind of data."""
    return settings(cell for piece in pieces.values() for cell in piece.results.get("cells", ()))


def settings(cells: Iterable[Json]) -> list[SettingFigures]:
    """Cells by setting, in the order in which they first come."""
    by_setting: dict[str, list[Json]] = {}
    for figures in cells:
        by_setting.setdefault(Cell.of(figures).setting, []).append(figures)
    return [SettingFigures(Cell.of(seeds[0]), seeds) for seeds in by_setting.values()]


def single_columns(setting: SettingFigures) -> list[str]:
    """Ours that a suspicion might be made of."""
    return [name for name in setting.columns if name in OURS and name != "suspicion"]


def peers(setting: SettingFigures) -> list[str]:
    """The methods of others."""
    return [name for name in setting.columns if name not in OURS and name not in SUSPICIONS]
