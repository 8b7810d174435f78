"""Flags that hold in each group: clean pairs calibrate for the pairs of their own group (`docs/design.md`, section 7).

Mondrian conformal prediction (Vovk, Gammerman and Shafer 2005, *Algorithmic learning in a random world*, section 4.5)
with the bounds of `conformal` in every group. Given who is in which group, chance alone says which of its right pairs
are the clean ones, in each group independently. So K groups at confidence c^(1/K) hold together with confidence c, and
with them the rate among all that is flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.detection.conformal import clean_pairs_needed, conformal_p_values, discoveries
from ecif.detection.flags import Flags, check_rate, noise_rate_of


@dataclass(frozen=True)
class GroupFlags:
    """Flags of n pairs in K groups.

    Attributes:
        flags: of all pairs together. p_value: within the group; 1 in one that has no clean pair.
        calibration_pairs: of each group, how many clean pairs it has.
        clean_pairs_needed: of each group that flags nothing about how many clean pairs would; None where something is
            flagged, where more would not help, or where there is nothing to flag.
        confidence: that of the bounds within one group.
    """

    flags: Flags
    calibration_pairs: list[int]
    clean_pairs_needed: list[int | None]
    confidence: float


def flag_by_group(
    suspicion: Tensor,
    calibration: Tensor,
    group: Tensor,
    calibration_group: Tensor,
    groups: int,
    rate: float,
    *,
    confidence: float,
    injected: Tensor | None = None,
) -> GroupFlags:
    """Flag (n,) suspicions against those of clean pairs (m,) of the same group: with that confidence the share of right
    pairs among the flagged is within the rate in all groups at once.

    A group of fewer than 1/rate − 1 clean pairs, whose p-values cannot be as small as the rate, flags nothing.

    Args:
        group, calibration_group: (n,), (m,) int64 below `groups`.

    Raises:
        ValueError: no calibration pair, NaN, or a rate or confidence outside (0, 1).
    """
    check_rate(rate)
    if not calibration.numel():
        raise ValueError("without calibration pairs there are no p-values")
    own = [torch.nonzero(group == number)[:, 0] for number in range(groups)]
    clean = [calibration[calibration_group == number] for number in range(groups)]
    least = math.ceil(1 / rate - 1)
    # Which groups share the confidence depends on how many pairs they have, not on how those score.
    calibrated = [number for number in range(groups) if len(own[number]) and len(clean[number]) >= least]
    sure = confidence ** (1 / max(1, len(calibrated)))
    q = torch.ones(len(suspicion), dtype=torch.float64)
    p = torch.ones_like(q)
    needed: list[int | None] = [None] * groups
    for number, (places, those) in enumerate(zip(own, clean, strict=True)):
        if len(places) and len(those):
            p[places] = conformal_p_values(suspicion[places], those)
        if number in calibrated:
            q[places] = discoveries(suspicion[places], those, sure).q_value
        if len(places) and not bool((q[places] <= rate).any()):
            needed[number] = _needed(suspicion[places], those, rate, sure, least)
    flagged = q <= rate
    flags = Flags("conformal", flagged, q, p, len(calibration), noise_rate_of(suspicion, injected, flagged, rate))
    return GroupFlags(flags, [len(those) for those in clean], needed, sure)


def _needed(suspicion: Tensor, clean: Tensor, rate: float, confidence: float, least: int) -> int | None:
    if not len(clean):
        return least
    needed = clean_pairs_needed(suspicion, clean, rate, confidence)
    return None if needed is None else max(needed, least)
