"""The share of wrong pairs in each group (`docs/design.md`, section 7). An estimate, no guarantee.

All groups together say what wrong and right pairs score: injected mismatches score as wrong pairs do, and all pairs
less the share of those as right ones do. In a group only the share is unknown, and expectation and maximisation find
the most likely one (Saerens, Latinne and Decaestecker 2002, *Adjusting the outputs of a classifier to new a priori
probabilities*). Fifty pairs are enough for it, where the estimate for all pairs needs hundreds.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_BINS: Final = 20
_STEPS: Final = 300


def wrong_by_group(suspicion: Tensor, injected: Tensor, noise_rate: float, group: Tensor, groups: int) -> Tensor:
    """(groups,) float64, the share of wrong pairs; NaN of a group without any pair.

    Args:
        suspicion: (n,), high = suspicious. injected: (m,), that of injected mismatches.
        noise_rate: the share of wrong pairs among all n.
        group: (n,) int64 below `groups`.

    Raises:
        ValueError: no pair, or no injected one.
    """
    n, m = suspicion.numel(), injected.numel()
    if not n or not m:
        raise ValueError("shares are told by scored and by injected pairs: there must be some of both")
    ordered = suspicion.double().sort().values
    inner = torch.unique(ordered[torch.arange(1, _BINS) * n // _BINS])
    bins = len(inner) + 1
    own, theirs = (torch.bucketize(values.double(), inner, right=True) for values in (suspicion, injected))
    counts = torch.zeros(groups, bins, dtype=torch.float64)
    counts.view(-1).index_add_(0, group * bins + own, torch.ones(n, dtype=torch.float64))
    every = counts.sum(0) / n
    wrong = (torch.bincount(theirs, minlength=bins).double() + 0.5) / (m + 0.5 * bins)
    # No more can be wrong in a bin than there are.
    wrong_part = torch.minimum(noise_rate * wrong, every)
    right_part = every - wrong_part
    wrong, right = (part / part.sum().clamp(min=1e-300) for part in (wrong_part, right_part))
    share = torch.full((groups, 1), noise_rate, dtype=torch.float64)
    for _ in range(_STEPS):
        odds = share * wrong
        posterior = odds / (odds + (1 - share) * right).clamp(min=1e-300)
        share = (counts * posterior).sum(1, keepdim=True) / counts.sum(1, keepdim=True)
    return share[:, 0]
