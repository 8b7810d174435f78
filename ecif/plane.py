"""Points of many dimensions on a plane, to be looked at."""

from typing import NamedTuple

import torch
from torch import Tensor


class Plane(NamedTuple):
    """points: (n, 2), within [−1, 1]. explained: the share of the variance that the plane holds."""

    points: Tensor
    explained: float


def principal_plane(rows: Tensor) -> Plane:
    """Rows on the plane of their two principal components, scaled alike in both directions.

    Args:
        rows: (n, E), finite.

    A component has no sign of its own: it gets the one with which its largest weight is positive, so that the same rows
    give the same picture.
    """
    centred = rows.double() - rows.double().mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes[:, -2:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    points = centred @ axes
    if points.shape[1] < 2:  # of rows of one number
        points = torch.nn.functional.pad(points, (0, 2 - points.shape[1]))
    total = float(variances.clamp(min=0).sum())
    explained = float(variances[-2:].clamp(min=0).sum()) / total if total else 1.0
    return Plane((points / points.abs().max().clamp(min=torch.finfo(points.dtype).tiny)).float(), explained)
