"""How much of the data looks wrong, where no clean set exists (`docs/design.md`, section 7).

An estimate, no guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ITERATIONS = 200
_REACH = 10.0  # interquartile ranges from the median beyond which a score counts as being there
_APART = 2.0
_FLOOR = 1e-2  # least standard deviation of a component, in interquartile ranges


@dataclass(frozen=True)
class NoiseEstimate:
    """rate in [0, 1]; posterior (n,) float64, the estimated probability that a pair is wrong, which never
    falls with its score; flagged (n,) bool, posterior > ½. rate = 0 where one component fits as well."""

    rate: float
    posterior: Tensor
    flagged: Tensor

    def count_at(self, rate: float) -> int:
        """How many of the most suspicious pairs may be flagged so that, by this estimate, at most a fraction `rate`
        of them is right after all: the largest k whose mean of 1 − posterior stays within it."""
        places = torch.arange(1, self.posterior.numel() + 1, device=self.posterior.device)
        doubt = (1 - self.posterior).sort().values.cumsum(0) / places
        within = (doubt <= rate).nonzero()
        return int(within[-1]) + 1 if len(within) else 0


def estimate_noise_rate(scores: Tensor) -> NoiseEstimate:
    """Two normal components fitted to suspicion scores (n,) by EM; the upper one is taken for the wrong pairs.

    Started from several splits; the likeliest end wins, and must beat one normal by BIC. Never fails: with NaN,
    few or constant scores the answer is that nothing looks wrong (NaN itself is never flagged).
    """
    known = ~scores.isnan()
    posterior = torch.zeros(scores.shape, dtype=torch.float64, device=scores.device)
    x = _standardise(scores[known].double())
    if x is not None:
        posterior[known] = _mixture(x)
    rate = float(posterior.mean()) if posterior.numel() else 0.0
    return NoiseEstimate(rate, posterior, posterior > 0.5)


def _standardise(x: Tensor) -> Tensor | None:
    """In interquartile ranges from the median, far tails drawn in; None where there is no spread."""
    if x.numel() < 8:
        return None
    x = x.nan_to_num()  # infinities become the largest finite number, then the edge of reach
    ordered = x.sort().values  # torch.quantile refuses more than 16 million
    low, middle, high = (ordered[int(f * (x.numel() - 1))] for f in (0.25, 0.5, 0.75))
    if not float(high - low) > 0:
        return None
    return ((x - middle) / (high - low)).clamp(-_REACH, _REACH)


def _mixture(x: Tensor) -> Tensor:
    """Posterior of the upper component, (n,); zeros where the mixture does not earn its parameters."""
    n, ordered = x.numel(), x.sort().values
    deviation = x.std(correction=0).clamp(min=_FLOOR)
    single = float(_log_normal(x, x.mean(), deviation).sum())
    best, log_likelihood, centre = torch.zeros_like(x), single + 1.5 * math.log(n), 0.0
    for fraction in (0.5, 0.7, 0.8, 0.9, 0.95):
        upper = (x > ordered[int(fraction * (n - 1))]).double()
        fitted = _em(x, upper)
        if fitted is not None and fitted[1] > log_likelihood:
            best, log_likelihood, centre = fitted
    # A wide upper component also claims the lower tail: below the lower centre nothing is suspicious, and
    # suspicion never falls as the score rises.
    best = torch.where(x <= centre, 0.0, best)
    order = x.argsort()
    monotone = torch.empty_like(best)
    monotone[order] = best[order].cummax(0).values
    return monotone


def _em(x: Tensor, upper: Tensor) -> tuple[Tensor, float, float] | None:
    """(posterior (n,), log-likelihood, lower centre) at the end of EM; None where a component dies."""
    log_likelihood, lower_mean = -float("inf"), 0.0
    for _ in range(_ITERATIONS):
        logs = []
        means, variances = [], []
        for weight in (1 - upper, upper):
            total = weight.sum()
            if float(total) < 2:
                return None
            mean = (weight * x).sum() / total
            deviation = ((weight * (x - mean).square()).sum() / total).sqrt().clamp(min=_FLOOR)
            means.append(float(mean))
            variances.append(float(deviation.square()))
            logs.append(_log_normal(x, mean, deviation) + (total / x.numel()).log())
        both = torch.stack(logs)
        upper = both.softmax(0)[1]
        before, log_likelihood, lower_mean = log_likelihood, float(both.logsumexp(0).sum()), means[0]
        if log_likelihood - before < 1e-6 * x.numel():
            break
    # Two groups, and not one skewed one: Ashman's D (1994), whose bound of 2 is where two equal normals part.
    apart = (means[1] - means[0]) / math.sqrt((variances[0] + variances[1]) / 2)
    return (upper, log_likelihood, lower_mean) if apart >= _APART else None


def _log_normal(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
