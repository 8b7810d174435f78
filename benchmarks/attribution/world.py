"""What is trained: two linear heads on embeddings of the detection table's data, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.detection.data import noisy
from benchmarks.detection.training import embed, new_model, train
from benchmarks.worlds import Pairs, World, linear_heads, world_of
from encoders.architectures import TINY_NAME

L2 = 0.3
"""δ per pair of fits that end at a minimum: a job's default."""


@dataclass(frozen=True)
class Data:
    """kind, noise: of the detection table, a fifth of the pairs wrong. pairs, validation: how many. batch: their size.
    architecture, pool, epochs: of the model that embeds them, and what it was trained on elsewhere."""

    kind: str
    noise: str
    pairs: int = 256
    validation: int = 128
    batch: int = 64
    architecture: str | dict[str, Any] = TINY_NAME
    pool: int = 1200
    epochs: int = 15


_made: dict[str, tuple[Pairs, float]] = {}


def embeddings(data: Data, seed: int) -> tuple[Pairs, float]:
    """(embeddings of the pairs and of the right ones that validate, the scale s of the model that made them); of one
    model once in a process, whatever is then trained on them."""
    name = f"{data} {seed}"
    if name not in _made:
        _made.clear()
        _made[name] = _embeddings(data, seed)
    return _made[name]


def _embeddings(data: Data, seed: int) -> tuple[Pairs, float]:
    drawn = noisy(
        data.kind,
        data.noise,
        0.2,
        seed,
        n=data.pairs,
        n_clean=data.validation,
        n_reserved=0,
        n_pool=data.pool,
    )
    model = new_model(data.architecture, seed)
    params = train(model, drawn.pool.images, drawn.pool.captions, epochs=data.epochs, seed=seed)
    here, there = (
        embed(model, params, images, captions)
        for images, captions in ((drawn.images, drawn.captions), (drawn.clean.images, drawn.clean.captions))
    )
    images, texts = torch.cat([here.images, there.images]), torch.cat([here.texts, there.texts])
    said = [*drawn.captions, *drawn.clean.captions]
    groups = {caption: place for place, caption in enumerate(dict.fromkeys(said))}
    captions = torch.tensor([groups[caption] for caption in said])
    unit = torch.nn.functional.normalize
    pairs = Pairs(unit(images.double(), dim=1), unit(texts.double(), dim=1), captions, len(drawn.captions))
    return pairs, 1 / model.full().temperature


def world(pairs: Pairs, scale: float, batch: int, l2: float, seed: int) -> World:
    """Heads on these embeddings, from the identity, as a job on embeddings has them."""
    width = pairs.images.shape[1]
    start: dict[str, Tensor] = {f"{tower}.weight": torch.eye(width, dtype=torch.float64) for tower in ("image", "text")}
    made = world_of(pairs, linear_heads, start, scale=scale, l2=l2, batch_size=batch, seed=seed)
    return replace(made, objective=replace(made.objective, linear=True))
