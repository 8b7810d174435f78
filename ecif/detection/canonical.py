"""The two modalities turned towards each other in closed form, as freely as their number allows.

A contrastive loss on linear heads finds, near its linear regime, what the singular vectors of the cross-covariance of
the modalities say (Nakada et al. 2023, *Understanding multimodal contrastive learning and incorporating unpaired data*,
arXiv 2302.06232); with both whitened first those are the canonical variables (Hotelling 1936). So what a fit of the
heads would learn of the data is had from three covariances, without a pass of gradients: with images X and texts Y
centred, C their covariances and ρ the ridge,

    (C_XX + ρ)^−½ C_XY (C_YY + ρ)^−½ = U diag(σ) Vᵀ,      x ↦ σ Uᵀ(C_XX + ρ)^−½ x,   y ↦ σ Vᵀ(C_YY + ρ)^−½ y.

The ridge, in units of the mean eigenvalue, says how freely: subtle errors of a strong model want much of it, a model
from elsewhere, or two that were never aligned, little (`docs/decisions/0027-suspicion-learned.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.similarity import normalise

RIDGES: Final = (1.0, 0.1, 0.001)
"""ρ, from tight to free, in units of the mean eigenvalue of each covariance."""

SCALE: Final = 30.0
"""Of similarities of canonical variables, in losses: between 10 and 30 it makes no difference."""


@dataclass(frozen=True)
class Canonical:
    """images, texts: unit rows (n, E) of the variables at that ridge."""

    ridge: float
    images: Tensor
    texts: Tensor


@torch.no_grad()
def canonical(images: Tensor, texts: Tensor, ridges: Iterable[float] = RIDGES) -> Iterator[Canonical]:
    """Of n pairs, unit rows (n, E) of both, one ridge after the other."""
    n = images.shape[0]
    x, y = images - images.mean(0), texts - texts.mean(0)
    # Sums of float32 products over all pairs, in float64 from there on: the small eigenvalues are what whitening meets.
    xx, yy, xy = ((left.mT @ right).double() / n for left, right in ((x, x), (y, y), (x, y)))
    spectra = [torch.linalg.eigh(covariance) for covariance in (xx, yy)]
    for ridge in ridges:
        white = [_inverse_root(values, vectors, ridge) for values, vectors in spectra]
        U, sigma, V = torch.linalg.svd(white[0] @ xy @ white[1])
        turned = ((white[0] @ U * sigma).to(x), (white[1] @ V.mT * sigma).to(y))
        yield Canonical(ridge, normalise(x @ turned[0]), normalise(y @ turned[1]))


def _inverse_root(values: Tensor, vectors: Tensor, ridge: float) -> Tensor:
    values = values.clamp(min=0)
    lift = ridge * values.mean()
    # Of pairs that are all alike nothing is left to whiten.
    root = torch.where(values + lift > 0, (values + lift).rsqrt(), 0.0)
    return vectors @ torch.diag(root) @ vectors.mT
