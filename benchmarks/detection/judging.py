"""How well a column finds wrong pairs: ranking, what a person meets who looks from the top, and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from benchmarks.sections import Json
from ecif.detection.flags import flag_against_clean

RATE: Final = 0.05
"""The false discovery rate that flags are asked for."""

CONFIDENCE: Final = 0.9
"""How surely it is to hold, given the clean pairs: the default of jobs."""

RESAMPLES: Final = 500


def judge(columns: Mapping[str, Tensor], wrong: Tensor, reserved: Tensor, *, against: str, seed: int) -> Json:
    """What each column is worth; higher = more suspicious.

    Args:
        columns: (n,) each.
        wrong, reserved: (n,) bool. Pairs that are reserved, all of them right, calibrate the flags of every column
            alike and are in no other figure.
        against: the column that others are compared with.

    Returns:
        For each column `auroc`, `average_precision`, `precision_10`, `precision_100`, `recall_10`, `recall_20` (the
        share of the wrong pairs among the first 10 and 20 % of all), `flagged` (how many, at `RATE`),
        `false_discovery` (the share of right pairs among them; null without any), `power` (the share of the wrong
        pairs that are flagged); `lead`, by how much its AUROC is above that of `against`, and `lead_error`, the
        standard error of that over resampled pairs, both columns on the same draws.
    """
    judged, truth = ~reserved, wrong[~reserved]
    resamples = _resamples(truth, seed)
    drawn = {name: auroc(values[judged], truth, resamples) for name, values in columns.items()}
    every = torch.ones(1, len(truth), dtype=torch.float64)
    figures = {}
    for name, values in columns.items():
        scores = values[judged]
        gap = drawn[name] - drawn[against]
        figures[name] = {
            "auroc": float(auroc(scores, truth, every)[0]),
            **_from_the_top(scores, truth, seed),
            **_flags(scores, truth, values[reserved]),
            "lead_error": float(gap.std()),
        }
    for row in figures.values():
        row["lead"] = row["auroc"] - figures[against]["auroc"]
    return figures


def auroc(scores: Tensor, wrong: Tensor, weights: Tensor) -> Tensor:
    """(r,) the chance that a wrong pair's score is above a right one's, ties half, for r weightings of the pairs.

    scores (n,), wrong (n,) bool, weights (r, n): how often each pair is there.
    """
    ordered, order = scores.double().sort()
    bad, w = wrong[order].double(), weights.double()[:, order]
    right = w * (1 - bad)
    below = torch.nn.functional.pad(right.cumsum(1), (1, 0))
    first = torch.searchsorted(ordered, ordered, side="left")
    last = torch.searchsorted(ordered, ordered, side="right")
    beaten = (below[:, first] + below[:, last]) / 2
    return (w * bad * beaten).sum(1) / ((w * bad).sum(1) * right.sum(1))


def _resamples(wrong: Tensor, seed: int) -> Tensor:
    """(r, n): how often each pair is drawn; wrong and right pairs apart, so that there are always some of both."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(RESAMPLES, len(wrong))
    for places in (wrong.nonzero().flatten(), (~wrong).nonzero().flatten()):
        drawn = places[torch.randint(len(places), (RESAMPLES, len(places)), generator=generator)]
        weights.scatter_add_(1, drawn, torch.ones(drawn.shape))
    return weights


def _from_the_top(scores: Tensor, wrong: Tensor, seed: int) -> Json:
    # Ties are looked at in a random order: as they stand would be in the order of the data.
    n = len(scores)
    mixed = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    seen = wrong[mixed[scores[mixed].argsort(descending=True, stable=True)]].double()
    cumulative, total = seen.cumsum(0), seen.sum()
    return {
        "average_precision": float((cumulative / torch.arange(1, n + 1) * seen).sum() / total),
        **{f"precision_{k}": float(seen[:k].mean()) for k in (10, 100)},
        **{f"recall_{share}": float(cumulative[max(1, n * share // 100) - 1] / total) for share in (10, 20)},
    }


def _flags(scores: Tensor, wrong: Tensor, calibration: Tensor) -> Json:
    return outcome_of_flags(flag_against_clean(scores, calibration, RATE, confidence=CONFIDENCE).flagged, wrong)


def outcome_of_flags(flagged: Tensor, wrong: Tensor) -> Json:
    """How many are flagged, how falsely (null without any), and how many of the wrong ones; (n,) bool each."""
    count, hits = int(flagged.sum()), int((flagged & wrong).sum())
    return {
        "flagged": count,
        "false_discovery": (count - hits) / count if count else None,
        "power": hits / int(wrong.sum()),
    }
