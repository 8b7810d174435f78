"""Which pairs to drop at a stated rate of error, with a trusted clean set or without (`docs/design.md`, section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ecif.detection.conformal import clean_pairs_needed, conformal_p_values, discoveries
from ecif.detection.noise_rate import estimate_noise_rate, mirrored_rates


@dataclass(frozen=True)
class Flags:
    """Which of n pairs to drop.

    Attributes:
        method: "conformal" bounds the false discovery proportion; "estimate" promises nothing.
        flagged: (n,) bool, those whose q_value is within the rate.
        q_value: (n,) float64, the least rate at which the pair is flagged.
        p_value: (n,) float64, of the conformal method only.
        calibration_pairs: m, how many clean pairs the p-values rest on.
        noise_rate: the estimated share of wrong pairs; None where it cannot be told.
        warning: why nothing is flagged, where nothing is.
    """

    method: Literal["conformal", "estimate"]
    flagged: Tensor
    q_value: Tensor
    p_value: Tensor | None = None
    calibration_pairs: int = 0
    noise_rate: float | None = None
    warning: str | None = None

    @property
    def count(self) -> int:
        """How many pairs are flagged."""
        return int(self.flagged.sum())


def flag_against_clean(
    suspicion: Tensor, calibration: Tensor, rate: float, *, confidence: float, injected: Tensor | None = None
) -> Flags:
    """Flag (n,) suspicions against those of m clean pairs (m,): with that confidence the share of right pairs among the
    flagged is within the rate.

    Holds if the calibration pairs are exchangeable with right scored pairs: they must have been treated alike, ranked
    and fitted along.

    Raises:
        ValueError: no calibration pair, NaN, or a rate or confidence outside (0, 1).
    """
    check_rate(rate)
    p = conformal_p_values(suspicion, calibration)
    q = discoveries(suspicion, calibration, confidence).q_value
    flagged, m = q <= rate, calibration.numel()
    warning = None
    if not bool(flagged.any()):
        needed = clean_pairs_needed(suspicion, calibration, rate, confidence)
        more = (
            f"at least about {needed:,} would be needed"
            if needed
            else "more of them would not help: right pairs score as high"
        )
        few = "1 clean pair" if m == 1 else f"{m} clean pairs"
        warning = (
            f"nothing is flagged: {few} cannot show, with a confidence of {confidence:g}, that at most "
            f"{rate:.0%} of any set of the most suspicious pairs is right; {more}"
        )
    return Flags("conformal", flagged, q, p, m, noise_rate_of(suspicion, injected, flagged, rate), warning)


def flag_by_estimate(suspicion: Tensor, rate: float, *, injected: Tensor | None = None) -> Flags:
    """Flag (n,) suspicions where no clean set exists, so that by an estimate a share `rate` of the flagged is right.

    Raises:
        ValueError: a rate outside (0, 1).
    """
    check_rate(rate)
    q = mirrored_rates(suspicion)
    flagged = q <= rate
    warning = None
    if not bool(flagged.any()):
        warning = (
            "nothing is flagged: the most suspicious pairs do not stand out from how right pairs scatter, so that no "
            f"set of them can be said to hold at most {rate:.0%} right ones"
        )
    return Flags("estimate", flagged, q, noise_rate=noise_rate_of(suspicion, injected, flagged, rate), warning=warning)


def noise_rate_of(suspicion: Tensor, injected: Tensor | None, flagged: Tensor, rate: float) -> float | None:
    """The estimate, and no less than what is flagged; None where there is neither."""
    estimate = estimate_noise_rate(suspicion, injected) if injected is not None else None
    return no_less_than_flagged(estimate, float(flagged.double().mean()) if len(flagged) else 0.0, rate)


def no_less_than_flagged(estimate: float | None, flagged: float, rate: float) -> float | None:
    """An estimated share of wrong pairs where a share `flagged` is taken to be wrong, but for `rate` of it."""
    least = flagged * (1 - rate)
    return max(estimate or 0.0, least) if estimate is not None or least > 0 else None


def check_rate(rate: float) -> None:
    """Raises ValueError: it is no share."""
    if not 0 < rate < 1:
        raise ValueError(f"the false discovery rate must lie in (0, 1), got {rate}")
