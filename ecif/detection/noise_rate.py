"""How much of the data looks wrong, and what may be flagged, where no clean set exists (`docs/design.md`, section 7).

Estimates, no guarantees. Injected mismatches say what wrong pairs look like: as the data are a mixture of right pairs
and such, no more than min F/G of them can be wrong, F and G being the shares of all and of injected pairs above a
threshold (Blanchard, Lee and Scott 2010, *Semi-supervised novelty detection*; Scott 2015). And the least suspicious
pairs say how right pairs scatter: what lies as far above the median as they lie below it is expected as often by
chance. Wrong pairs lift the median, so that this counts too many rather than too few, as long as right pairs do not
scatter further up than down.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_LEAST: Final = 20  # pairs above a threshold, of both kinds, for a share to mean something
_FIRM: Final = 0.2  # and that share of the injected ones: the least of many shaky ratios would be too low


def estimate_noise_rate(suspicion: Tensor, injected: Tensor) -> float | None:
    """The share of wrong pairs among (n,), given the suspicion of injected ones (m,), high = suspicious; None where
    there are too few of either."""
    n, m = suspicion.numel(), injected.numel()
    if min(n, m) < _LEAST:
        return None
    thresholds = suspicion.sort(descending=True).values
    own = torch.arange(1, n + 1, dtype=torch.float64, device=suspicion.device)
    above = m - torch.searchsorted(injected.sort().values, thresholds.contiguous())
    firm = (own >= _LEAST) & (above >= max(_LEAST, _FIRM * m))
    if not bool(firm.any()):
        return None
    return min(1.0, float(((own / n) / (above / m))[firm].min()))


def mirrored_rates(suspicion: Tensor) -> Tensor:
    """(n,) float64: of the pairs that are at least as suspicious, the share that is expected to be right; 1 at the
    most."""
    n = suspicion.numel()
    if not n:
        return suspicion.double()
    values = suspicion.double()
    ordered = values.sort().values
    centre = ordered[(n - 1) // 2]
    chance = torch.searchsorted(ordered, 2 * centre - values, right=True) + 1
    there = n - torch.searchsorted(ordered, values)
    rate = torch.where(values > centre, (chance / there).clamp(max=1.0), 1.0)
    # The best of the sets that hold a pair.
    order = values.argsort()
    least = torch.empty_like(rate)
    least[order] = rate[order].cummin(0).values
    return least
