"""From suspicion to a list of pairs with a stated error rate (`docs/design.md`, section 7).

Higher score = more suspicious. Conformal p-values against clean calibration pairs, then Benjamini and Hochberg (1995):
the false discovery rate is controlled (Bates et al. 2023, *Testing for outliers with conformal p-values*, theorem 2) if
calibration pairs are exchangeable with clean scored pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Discoveries:
    """q_value (n,) float64, the least rate at which a pair would be flagged; flagged (n,) bool."""

    q_value: Tensor
    flagged: Tensor


def conformal_p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """p = (1 + #{calibration ≥ score}) / (m + 1), (n,) float64. scores (n,), calibration (m,).

    Raises:
        ValueError: not one-dimensional, no calibration pair, or a score that is NaN.
    """
    _check(scores, "scores")
    _check(calibration, "calibration")
    m = calibration.numel()
    if m == 0:
        raise ValueError("without calibration pairs there are no p-values; see estimate_noise_rate")
    below = torch.searchsorted(calibration.double().sort().values, scores.double().contiguous())
    return (1 + m - below).double() / (m + 1)


def benjamini_hochberg(p: Tensor, rate: float) -> Discoveries:
    """q_(i) = min_{j≥i} n·p_(j)/j, flagged where q ≤ rate. p (n,).

    Raises:
        ValueError: a rate outside (0, 1), or p-values outside [0, 1].
    """
    _check_rate(rate)
    _check(p, "p")
    if p.numel() and not (float(p.min()) >= 0 and float(p.max()) <= 1):
        raise ValueError("p-values lie in [0, 1]")
    n = p.numel()
    ordered, order = p.double().sort()
    ranks = torch.arange(1, n + 1, dtype=torch.float64, device=p.device)
    q = torch.empty_like(ordered)
    q[order] = (ordered * n / ranks).flip(0).cummin(0).values.flip(0)
    return Discoveries(q, q <= rate)


def smallest_flaggable(m: int, n: int, rate: float) -> int:
    """How many of n pairs must beat all m calibration pairs before any can be flagged; > n: none ever.

    No p-value is below 1/(m + 1), so j pairs that share it are flagged only if n/((m + 1)·j) ≤ rate.
    """
    _check_rate(rate)
    return max(1, math.ceil(n / ((m + 1) * rate) * (1 - 1e-12)))


def calibration_warning(m: int, n: int, rate: float) -> str | None:
    """What to tell the user when m calibration pairs are too few for n pairs at this rate, or None."""
    least = smallest_flaggable(m, n, rate)
    if least > n:
        return (
            f"{m} calibration pairs can flag nothing at a false discovery rate of {rate:g}: "
            f"at least {math.ceil(1 / rate) - 1} are needed"
        )
    if least > 0.05 * n:
        return (
            f"with {m} calibration pairs nothing is flagged at a false discovery rate of {rate:g} unless at "
            f"least {least} of {n} pairs are more suspicious than every calibration pair"
        )
    return None


def _check(values: Tensor, name: str) -> None:
    if values.ndim != 1 or bool(values.isnan().any()):
        raise ValueError(f"{name} must be one-dimensional and free of NaN")


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"the false discovery rate must lie in (0, 1), got {rate}")
