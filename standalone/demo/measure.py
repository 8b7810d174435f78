"""How well a score finds what was planted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SCORES: Mapping[str, int] = {
    "suspicion": 1,
    "influence": -1,
    "self_influence": 1,
    "clip_score": -1,
    "pair_loss": 1,
}
"""Each score, and the sign under which a large value means a bad pair."""


def auroc(scores: Sequence[float], planted: Sequence[bool]) -> float | None:
    """Probability that a planted pair has a higher score than a clean one, ties counted half. None without both kinds.

    Mann and Whitney (1947): (R - p (p + 1) / 2) / (p c), with R the sum of the planted pairs' ranks.
    """
    p = sum(planted)
    c = len(planted) - p
    if not p or not c:
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, first = 0.0, 0
    while first < len(order):
        after = first
        while after < len(order) and scores[order[after]] == scores[order[first]]:
            after += 1
        shared_rank = (first + 1 + after) / 2
        rank_sum += shared_rank * sum(planted[index] for index in order[first:after])
        first = after
    return (rank_sum - p * (p + 1) / 2) / (p * c)


@dataclass(frozen=True)
class Findings:
    """What the demo can say, because it knows which captions it swapped."""

    planted: int
    pairs: int
    planted_at: dict[int, int]
    """Planted pairs among the first k of the ranking."""
    auroc: dict[str, float | None]
    flagged: int
    flagged_planted: int


def findings(rows: Sequence[Json], planted: Collection[str], depths: Sequence[int]) -> Findings:
    """Compare the ranking, `rows` in rank order, with the keys that were planted."""
    truth = [row["key"] in planted for row in rows]
    flagged = [bool(row["flagged"]) for row in rows]
    return Findings(
        planted=sum(truth),
        pairs=len(rows),
        planted_at={depth: sum(truth[:depth]) for depth in depths},
        auroc={name: _auroc_of(rows, truth, name, sign) for name, sign in SCORES.items()},
        flagged=sum(flagged),
        flagged_planted=sum(both for both in map(all, zip(flagged, truth, strict=True))),
    )


def _auroc_of(rows: Sequence[Json], truth: Sequence[bool], name: str, sign: int) -> float | None:
    known = [(sign * row[name], bad) for row, bad in zip(rows, truth, strict=True) if row[name] is not None]
    return auroc([score for score, _ in known], [bad for _, bad in known])
