"""Whether a clean set is of the same kind as the data it is to calibrate for.

Its images, and its captions, each for themselves, must look as those of the data do. Wrong pairs do not disturb this:
they show other combinations of the same images and captions. A linear classifier that tells the two apart on halves it
was not fitted on shows that they differ (Lopez-Paz and Oquab 2017, *Revisiting classifier two-sample tests*).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.detection.calibrator import auroc

_MOST = 20_000  # pairs of each set that are looked at
_RIDGE = 1e-2  # of the mean eigenvalue


@torch.no_grad()
def told_apart(images: Tensor, texts: Tensor, clean: Tensor, seed: int = 0) -> tuple[float, float]:
    """(AUROC, its standard error where the sets do not differ) of telling clean pairs from the others by their
    embeddings (n, E): of images and captions the larger. clean: (n,) bool. (½, 0) where there are fewer than four of
    either."""
    places = [torch.nonzero(clean == which)[:, 0].cpu() for which in (True, False)]
    if min(len(each) for each in places) < 4:
        return 0.5, 0.0
    drawn = generator(seed, -70)
    some = [each[torch.randperm(len(each), generator=drawn)[:_MOST]] for each in places]
    halves = [torch.cat([each[half::2] for each in some]) for half in (0, 1)]
    largest = max(
        _across(side[halves[0]], clean[halves[0]], side[halves[1]], clean[halves[1]]) for side in (images, texts)
    )
    m, n = (len(each) for each in some)
    return largest, ((m + n + 1) / (12 * m * n)) ** 0.5


def _across(first: Tensor, is_first: Tensor, second: Tensor, is_second: Tensor) -> float:
    """The mean of both ways of fitting on one half and scoring the other."""
    ways = ((first, is_first, second, is_second), (second, is_second, first, is_first))
    return sum(auroc(_discriminant(x, mine, other), held) for x, mine, other, held in ways) / 2


def _discriminant(x: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """Fisher's linear discriminant of x (n, E), on `other`."""
    x = x.double()
    means = [x[mine == which].mean(0) for which in (True, False)]
    within = x - torch.where(mine[:, None], means[0], means[1])
    covariance = within.mT @ within / len(x)
    ridge = _RIDGE * covariance.diagonal().mean() + 1e-12
    eye = torch.eye(len(covariance), dtype=x.dtype, device=x.device)
    scores: Tensor = other.double() @ torch.linalg.solve(covariance + ridge * eye, means[0] - means[1])
    return scores
