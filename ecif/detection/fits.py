"""Heads on the embeddings, fitted ever more freely: what a pair's neighbours in the data say of it shows after a fit.

Two square heads start at the identity, as for a dataset of embeddings (`docs/design.md`, section 1). Each strength δ
starts where the one before ended. How freely a fit should go is not known beforehand: subtle errors want little of it,
a model from elsewhere much; so several are looked at, and injected pairs choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.batches import Batch, cut_batches, plan_batches
from ecif.fit.fitting import fit
from ecif.fit.settings import FitSettings
from ecif.objective import Objective
from ecif.parameters import Params

STRENGTHS: Final = (3.0, 0.03, 0.0003)
"""δ per pair, from tight to free."""

EPOCHS: Final = 10
"""Passes at each strength."""

_BATCH: Final = 128


@dataclass(frozen=True)
class Fitted:
    """images, texts: (n, E) after a fit of that strength. epochs: how many it took."""

    strength: float
    images: Tensor
    texts: Tensor
    epochs: int


def linear_heads(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """(texts, images) through their heads, as an `Embed`."""
    return texts @ params["text.weight"].mT, images @ params["image.weight"].mT


def fitted(
    images: Tensor,
    texts: Tensor,
    caption_group: Tensor,
    image_group: Tensor,
    *,
    scale: float,
    seed: int,
    strengths: Iterable[float] = STRENGTHS,
    epochs: int = EPOCHS,
) -> Iterator[Fitted]:
    """One after the other. images, texts: (n, E) as the model gives them; groups (n,)."""
    n, width = images.shape
    eye = torch.eye(width, dtype=images.dtype, device=images.device)
    start: Params = {"text.weight": eye, "image.weight": eye}
    (order,) = plan_batches(n, _BATCH, 1, seed)
    batches = [
        Batch(images[places], texts[places], caption_group[places], image_group[places])
        for places in (chunk.to(images.device) for chunk in cut_batches(order, _BATCH))
    ]
    params = start
    for strength in strengths:
        objective = Objective(linear_heads, scale, strength, start, n, linear=True)
        result = fit(objective, params, lambda: batches, FitSettings(epochs=epochs))
        params = result.params
        text, image = linear_heads(params, images, texts)
        yield Fitted(strength, image, text, result.epochs_done)
