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
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from ecif.similarity import normalise

RIDGES: Final = (1.0, 0.1, 0.001)
"""ρ, from tight to free, in units of the mean eigenvalue of each covariance."""

SCALE: Final = 30.0
"""Of similarities of canonical variables, in losses: between 10 and 30 it makes no difference."""


@dataclass(frozen=True)
class Turned:
    """The maps at a ridge: centres (E,) and maps (E, E) of images and texts."""

    ridge: float
    image_centre: Tensor
    text_centre: Tensor
    image_map: Tensor
    text_map: Tensor

    def images(self, rows: Tensor) -> Tensor:
        """Unit rows (k, E) of the canonical variables of images (k, E)."""
        return normalise((rows - self.image_centre) @ self.image_map)

    def texts(self, rows: Tensor) -> Tensor:
        """The same of texts."""
        return normalise((rows - self.text_centre) @ self.text_map)


@dataclass(frozen=True)
class Covariances:
    """What the maps are made of: n, the centres (E,), and in float64 the spectra of C_XX and C_YY, and C_XY (E, E)."""

    n: int
    image_centre: Tensor
    text_centre: Tensor
    image_spectrum: tuple[Tensor, Tensor]
    text_spectrum: tuple[Tensor, Tensor]
    cross: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, images: Tensor, texts: Tensor) -> Covariances:
        """Of n pairs, rows (n, E) each."""
        n = images.shape[0]
        x, y = images.mean(0), texts.mean(0)
        xx, yy, xy = (torch.zeros(2 * (images.shape[1],), dtype=torch.float64, device=images.device) for _ in range(3))
        # Products of float32 blocks, added in float64: the small eigenvalues are what whitening meets.
        for some in torch.split(torch.arange(n, device=images.device), _ROWS):
            a, b = images[some] - x, texts[some] - y
            for total, left, right in ((xx, a, a), (yy, b, b), (xy, a, b)):
                total += left.mT @ right
        return cls(n, x, y, torch.linalg.eigh(xx / n), torch.linalg.eigh(yy / n), xy / n)

    def with_exchanged(self, images: Tensor, before: Tensor, after: Tensor) -> Covariances:
        """Where pairs with these images (k, E) exchanged their texts `before` for `after` (k, E) among themselves: then
        C_XY alone changes."""
        change = (images - self.image_centre).mT @ (after - before)
        return replace(self, cross=self.cross + change.double() / self.n)

    @torch.no_grad()
    def turned(self, ridges: Iterable[float] = RIDGES) -> Iterator[Turned]:
        """The maps at one ridge after the other."""
        for ridge in ridges:
            white = [_inverse_root(*spectrum, ridge) for spectrum in (self.image_spectrum, self.text_spectrum)]
            M = white[0] @ self.cross @ white[1]
            # σV = MᵀU: the eigenvectors of MMᵀ are enough, and come in half the time of both sides.
            squared, U = torch.linalg.eigh(M @ M.mT)
            maps = (white[0] @ U * squared.clamp(min=0).sqrt(), white[1] @ M.mT @ U)
            yield Turned(ridge, self.image_centre, self.text_centre, *(part.to(self.image_centre) for part in maps))


_ROWS: Final = 1 << 14


def _inverse_root(values: Tensor, vectors: Tensor, ridge: float) -> Tensor:
    values = values.clamp(min=0)
    lift = ridge * values.mean()
    # Of pairs that are all alike nothing is left to whiten.
    root = torch.where(values + lift > 0, (values + lift).rsqrt(), 0.0)
    return vectors @ torch.diag(root) @ vectors.mT
