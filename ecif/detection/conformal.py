"""How many of the flagged are right after all, at most, in the run at hand (`docs/design.md`, section 7).

Higher score = more suspicious. Of n₀ right pairs that are scored and m clean ones that calibrate, all exchangeable, let
V_k be how many scored ones stand above the (k+1)-th highest of the calibration. Its law depends on n₀ and m alone
(negative hypergeometric), and so does the joint law of all V_k. Bounds b_k that hold for all k at once with a stated
confidence over the draw of clean set and data therefore bound the false discovery proportion of every threshold, which
is b_k/R_k for R_k flagged pairs, and of whichever is chosen after looking. This holds for scores that depend on both
sets alike (Gazin, Blanchard and Roquain 2024, *Transductive conformal inference with adaptive scores*, arXiv
2310.18108; the mean alone, over many runs, is what Benjamini and Hochberg's procedure controls). As what is flagged
beyond b_k is wrong, n₀ ≤ n − max(R_k − b_k) on the same event, which adapts to the share of wrong pairs.

Departure: the bounds' common level is set by simulation of the joint law, where that paper has a closed form of
Dvoretzky, Kiefer and Wolfowitz's type, which is loose where it counts, among the few most suspicious.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from ecif.batches import generator

_DRAWS: Final = 5_000  # of the joint law: its 10 % quantile is then known to half a percent
_BEYOND: Final = 20  # draws beyond the quantile, at least: as many more are made for a confidence that is nearer to 1
_MOST_DRAWS: Final = 50_000
_ROUNDS: Final = 8  # of adapting n₀; it settles in two or three
_DEEPEST: Final = 4096  # calibration pairs above a threshold; whatever is flagged there is far beyond any useful rate


@dataclass(frozen=True)
class Discoveries:
    """q_value (n,) float64: the least bound on the false discovery proportion of a set that holds the pair; 1 where
    there is none below. right_at_most: n₀ at most, with the same confidence."""

    q_value: Tensor
    right_at_most: int


def conformal_p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """p = (1 + #{calibration ≥ score}) / (m + 1), (n,) float64. scores (n,), calibration (m,).

    Raises:
        ValueError: not one-dimensional, no calibration pair, or a score that is NaN.
    """
    m = _check(scores, calibration)
    below = torch.searchsorted(calibration.double().sort().values, scores.double().contiguous())
    return (1 + m - below).double() / (m + 1)


def discoveries(scores: Tensor, calibration: Tensor, confidence: float) -> Discoveries:
    """Of scores (n,) against those of clean pairs (m,), with that confidence for every rate at once.

    Raises:
        ValueError: not one-dimensional, no calibration pair, NaN, or a confidence outside (0, 1).
    """
    m, n = _check(scores, calibration), scores.numel()
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must lie in (0, 1), got {confidence}")
    ranks = _grid(m)
    thresholds, above = _thresholds(scores, calibration, ranks)
    right = n
    for _ in range(_ROUNDS):
        bound = bounds(right, m, confidence, ranks)
        fewer = n - max(0, int((above - bound).max()))
        if fewer >= right:
            break
        right = fewer
    proportion = torch.where(above > 0, bound.double() / above.clamp(min=1), 1.0).clamp(max=1.0)
    # A pair that is above a threshold is above all lower ones: the best of those counts.
    least = proportion.flip(0).cummin(0).values.flip(0)
    place = torch.searchsorted(-thresholds, -scores.double().contiguous(), right=True)  # the first below the score
    q = torch.where(place < len(ranks), least[place.clamp(max=len(ranks) - 1)], 1.0)
    return Discoveries(q, right)


def bounds(n: int, m: int, confidence: float, ranks: Tensor) -> Tensor:
    """b_k (k,) int64 for each k of `ranks`, ascending, below m: together right with that confidence, n exchangeable
    pairs beside m."""
    draws = min(max(_DRAWS, round(_BEYOND / (1 - confidence))), _MOST_DRAWS)
    drawn = _joint_draws(n, m, ranks, draws)
    ordered = drawn.sort(0).values
    # How many draws reach as far, in each column; the least share over the columns says how extreme a draw is.
    reach = torch.stack(
        [draws - torch.searchsorted(ordered[:, k].contiguous(), drawn[:, k].contiguous()) for k in range(len(ranks))],
        1,
    )
    # The first threshold may miss more often than those below: at low rates nothing else is of use.
    weight = (torch.arange(1, len(ranks) + 1, dtype=torch.float64)).square().reciprocal()
    level = float((reach / weight).amin(1).sort().values[int((1 - confidence) * draws)])
    beyond = (level * weight).ceil().long().clamp(1, draws) - 1  # draws of a column that go beyond its bound, at most
    return ordered.gather(0, (draws - 1 - beyond)[None])[0]


def clean_pairs_needed(scores: Tensor, calibration: Tensor, rate: float, confidence: float) -> int | None:
    """At least how many clean pairs, about, would flag something at this rate, if more of them scored as these do; None
    where a hundred times as many would not."""
    m = _check(scores, calibration)
    ranks = _grid(m)
    _, above = _thresholds(scores, calibration, ranks)
    more = m
    while more <= 100 * m:
        more = more * 3 // 2 + 1
        # At the same threshold as many times more calibration pairs stand above; above all of them now, still none.
        expected = (ranks * more // m).clamp(max=_DEEPEST)
        if bool((bounds(scores.numel(), more, confidence, expected) <= rate * above).any()):
            return more
    return None


def _thresholds(scores: Tensor, calibration: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """The (k+1)-th highest calibration score for each k, and how many scores are above it."""
    thresholds = calibration.double().sort(descending=True).values[ranks]
    ordered = scores.double().sort().values
    return thresholds, scores.numel() - torch.searchsorted(ordered, thresholds, right=True)


def _grid(m: int) -> Tensor:
    """k = 0, 1, 2, 3, 4, 6, 8, 12, … below m: denser would cost confidence and say little more."""
    ranks, step = [], 0
    while step < min(m, _DEEPEST):
        ranks.append(step)
        step = step + 1 if step < 4 else step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return torch.tensor(ranks)


def _joint_draws(n: int, m: int, ranks: Tensor, draws: int) -> Tensor:
    """V_k in draws of the joint law, (draws, k) int64: of uniform scores, from the top down."""
    random = generator(n, m)
    passed, columns = torch.zeros(draws, dtype=torch.float64), []
    for share in _shares(m, tuple(ranks.tolist()), draws):
        passed = passed + torch.binomial(n - passed, share, generator=random)
        columns.append(passed)
    return torch.stack(columns, 1).long()


@lru_cache(maxsize=8)
def _shares(m: int, ranks: tuple[int, ...], draws: int) -> list[Tensor]:
    """For each k of `ranks`, of what is below the threshold before, how much is above this one; (draws,) each."""
    random, shares, before = generator(m, draws), [], -1
    for rank in ranks:
        # Spacings of uniform order statistics (Rényi): what is left below one after the other, as a share.
        remain = torch.arange(m - before - 1, m - rank - 1, -1, dtype=torch.float64)
        parts = [
            (torch.rand(some, len(remain), dtype=torch.float64, generator=random).log_() / remain).sum(1)
            for some in [_DRAWS] * (draws // _DRAWS) + [draws % _DRAWS]
        ]
        shares.append(-torch.expm1(torch.cat(parts)))
        before = rank
    return shares


def _check(scores: Tensor, calibration: Tensor) -> int:
    for name, values in (("scores", scores), ("calibration", calibration)):
        if values.ndim != 1 or bool(values.isnan().any()):
            raise ValueError(f"{name} must be one-dimensional and free of NaN")
    if calibration.numel() == 0:
        raise ValueError("without calibration pairs there are no p-values")
    return calibration.numel()
