"""Which pairs to drop at a stated rate of error, with a trusted clean set or without (`docs/design.md`, section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ecif.detection.conformal import conformal_p_values
from ecif.detection.noise_rate import estimate_noise_rate


@dataclass(frozen=True)
class Flags:
    """Which of n pairs to drop.

    Attributes:
        method: "conformal" controls the false discovery rate; "estimate" promises nothing.
        flagged: (n,) bool.
        p_value, q_value: (n,) float64, of the conformal method only.
        calibration_pairs: m, how many clean pairs the p-values rest on.
        noise_rate: of the estimate only, the share of pairs that look wrong; 0 where no separate group is seen.
        warning: where nothing is flagged because the calibration pairs are too few, what would be enough.
    """

    method: Literal["conformal", "estimate"]
    flagged: Tensor
    p_value: Tensor | None = None
    q_value: Tensor | None = None
    calibration_pairs: int = 0
    noise_rate: float | None = None
    warning: str | None = None

    @property
    def count(self) -> int:
        """How many pairs are flagged."""
        return int(self.flagged.sum())


def flag_against_clean(suspicion: Tensor, calibration: Tensor, rate: float) -> Flags:
    """Flag (n,) suspicions against those of m clean pairs (m,), at a false discovery rate.

    Holds if the calibration pairs are exchangeable with clean scored pairs: they must have been treated alike, ranked
    and fitted along.

    Raises:
        ValueError: no calibration pair, NaN, or a rate outside (0, 1).
    """
    p = conformal_p_values(suspicion, calibration)
    discoveries = benjamini_hochberg(p, rate)
    n, m = suspicion.numel(), calibration.numel()
    warning = None if bool(discoveries.flagged.any()) else calibration_warning(m, n, rate)
    return Flags("conformal", discoveries.flagged, p, discoveries.q_value, calibration_pairs=m, warning=warning)


def flag_by_estimate(suspicion: Tensor, clip_score: Tensor, rate: float) -> Flags:
    """Flag (n,) suspicions where no clean set exists, so that by an estimate a share `rate` of the flagged is right.

    Cosines of right and of wrong pairs are near normal, where losses are not: the mixture of the clip_score (n,) says
    how many are wrong, and the suspicion which.
    """
    estimate = estimate_noise_rate(-clip_score)
    flagged = torch.zeros_like(suspicion, dtype=torch.bool)
    flagged[torch.argsort(suspicion, descending=True, stable=True)[: estimate.count_at(rate)]] = True
    return Flags("estimate", flagged, noise_rate=estimate.rate)
