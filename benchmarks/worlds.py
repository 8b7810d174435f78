"""The settings in which predictions meet refits: pairs, a model, and which of its weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecif import Batch, Batches, FitSettings, Objective, cut_batches, fit, plan_batches
from ecif.objective import Embed
from ecif.parameters import Params


@dataclass(frozen=True)
class World:
    """One training problem. `image_group` of every batch holds the pairs' numbers, 0 to n − 1.

    objective, start: what is minimised, and from where. train, validation: the batches of each. n, n_validation: pairs.
    """

    objective: Objective
    start: Params
    train: Sequence[Batch]
    validation: Sequence[Batch]
    n: int
    n_validation: int

    @property
    def batches(self) -> Batches:
        """One pass over the training pairs."""
        return lambda: self.train

    def validate(self, params: Params) -> tuple[float, Tensor]:
        """L_val and its gradient (P,)."""
        return self.objective.validation_value_and_gradient(params, self.validation, self.n_validation)

    def without(self, removed: Tensor) -> World:
        """The same batches without the removed pairs (n,) bool; N and θ_prior stay as they were."""
        left = [(batch, ~removed[batch.image_group]) for batch in self.train]
        return replace(self, train=[batch.take(stays) for batch, stays in left if bool(stays.any())])

    def in_single(self) -> World:
        """In float32, as jobs compute, where this one is in float64."""
        start = {name: tensor.float() for name, tensor in self.start.items()}
        train, validation = (
            [replace(batch, images=batch.images.float(), texts=batch.texts.float()) for batch in batches]
            for batches in (self.train, self.validation)
        )
        objective = replace(self.objective, prior=start)
        return replace(self, objective=objective, start=start, train=train, validation=validation)


@dataclass(frozen=True)
class Pairs:
    """Everything a model sees of n pairs, the training pairs first."""

    images: Tensor
    texts: Tensor
    captions: Tensor
    n: int

    def batches(self, size: int, seed: int) -> tuple[list[Batch], list[Batch]]:
        """(training, validation) batches of seeded membership."""
        held_out = len(self.texts) - self.n
        train = cut_batches(plan_batches(self.n, size, 1, seed)[0], size)
        validation = cut_batches(plan_batches(held_out, size, 1, seed)[0] + self.n, size) if held_out else []
        return [self._take(cut) for cut in train], [self._take(cut) for cut in validation]

    def _take(self, rows: Tensor) -> Batch:
        return Batch(self.images[rows], self.texts[rows], self.captions[rows], rows)


def world_of(
    pairs: Pairs, embed: Embed, start: Params, *, scale: float, l2: float, batch_size: int, seed: int
) -> World:
    """The world of a model on pairs; θ_prior is where it starts."""
    objective = Objective(embed, scale, l2, dict(start), pairs.n)
    train, validation = pairs.batches(batch_size, seed)
    return World(objective, start, train, validation, pairs.n, len(pairs.texts) - pairs.n)


def synthetic(seed: int, *, n: int = 256, width: int = 4, scale: float = 5.0, batch_size: int = 32) -> World:
    """Noisy embeddings of common latent variables, a fifth of the texts wrong, two square heads from the identity.

    The draws of `tests/ecif/test_refit.py`: hard on purpose. 128 validation pairs, δ = 0.3, float64.
    """
    g = torch.Generator().manual_seed(1000 + seed)
    total = n + 128

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    sizes = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    latent = draw(total, width) * sizes
    mix = torch.linalg.qr(draw(width, width))[0]
    images = (latent + 0.4 * sizes * draw(total, width)) @ mix
    draw(width)  # what all embeddings share in the tests' world; none of it here, but the same draws
    texts = (latent + 0.4 * sizes * draw(total, width)) @ (mix + 0.3 * draw(width, width) / width**0.5)
    draw(width)
    wrong = torch.randperm(n, generator=g)[: n // 5]
    texts[wrong] = texts[wrong.roll(1)]
    unit = torch.nn.functional.normalize
    pairs = Pairs(unit(images, dim=1), unit(texts, dim=1), torch.arange(total), n)
    start = {f"{tower}.weight": torch.eye(width, dtype=torch.float64) for tower in ("image", "text")}
    return world_of(pairs, linear_heads, start, scale=scale, l2=0.3, batch_size=batch_size, seed=seed)


def linear_heads(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Linear heads without bias, as those that the encoders build."""
    return texts @ params["text.weight"].mT, images @ params["image.weight"].mT


def train_from_scratch(world: World, epochs: int, on_epoch: Callable[[int, Params], None] | None = None) -> Params:
    """Where so many epochs of Adam lead: no stationary point."""
    return fit(
        world.objective, world.start, world.batches, FitSettings(epochs=epochs, adam_share=1.0), on_epoch=on_epoch
    ).params
