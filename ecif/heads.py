"""Two linear heads on fixed features: S and its derivatives in closed form, several batches in one product.

With features x, t = W x (+ b), u = t/‖t‖ for texts, v likewise for images, S = s·u·vᵀ within each batch. Along a change
dW of the weights and for a cotangent c of S (zero where an entry is excluded),

    dt = dW x,  du = (dt − u (u·dt))/‖t‖,  dS = s (du·vᵀ + u·dvᵀ),
    ū = s c v,  t̄ = (ū − u (u·ū))/‖t‖,  W̄ = Σ_n t̄_n x_nᵀ,

and likewise for images with cᵀ. Features do not meet across batches but in W̄, which is one matrix product over the rows
of all of them: torch.func would do each batch, and each derivative, apart (`docs/design.md`, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.parameters import Params, flatten, unflatten
from ecif.similarity import EXCLUDED, false_negatives, unit_and_inverse

TOWERS = ("text", "image")

MOST_STACKED = 32
"""Batches in one product: more gain nothing."""

_ELEMENTS = 1 << 24
"""About how many numbers a product with several directions may hold at once."""


@dataclass(frozen=True)
class Stack:
    """G batches of B pairs each: the fields of `Batch` with G before them."""

    images: Tensor
    texts: Tensor
    caption_group: Tensor
    image_group: Tensor

    @classmethod
    def of(cls, batches: list[Batch]) -> Stack:
        """Batches of equal size; of a single one nothing is copied."""
        if len(batches) == 1:
            return cls(*(getattr(batches[0], name)[None] for name in _FIELDS))
        return cls(*(torch.stack([getattr(batch, name) for batch in batches]) for name in _FIELDS))


_FIELDS = ("images", "texts", "caption_group", "image_group")


def stacked(batches: Iterable[Batch], directions: int = 1) -> Iterator[Stack]:
    """All batches in their order, neighbours of equal size together: so many that products with that many directions
    stay within bounds. The cut depends on sizes alone, so sums are the same every time."""
    waiting = iter(batches)
    ahead = next(waiting, None)
    while ahead is not None:
        size, width = ahead.size, ahead.texts.shape[-1] + ahead.images.shape[-1]
        most = max(1, min(MOST_STACKED, _ELEMENTS // (max(1, directions) * size * (size + width))))
        group, following = [ahead], None
        for batch in islice(waiting, most - 1):
            if batch.size != size:
                following = batch
                break
            group.append(batch)
        yield Stack.of(group)
        ahead = following if following is not None else next(waiting, None)


class Objective(Protocol):
    """What is needed of `objective.Objective`."""

    @property
    def scale(self) -> float:
        """s."""

    @property
    def bias(self) -> float:
        """b."""

    @property
    def mask_duplicates(self) -> bool:
        """Whether equal captions or images leave each other's denominators."""


@dataclass(frozen=True)
class Side:
    """One head on the rows of all batches: features x (N, D), unit (G, B, E), inverse (G, B, 1): 1/‖t‖, and 0 for 0.

    weight, bias: their names; biased: whether there is a bias.
    """

    x: Tensor
    unit: Tensor
    inverse: Tensor
    weight: str
    bias: str
    biased: bool

    @classmethod
    def of(cls, features: Tensor, params: Params, tower: str) -> Side:
        groups, size, width = features.shape
        weight, bias = f"{tower}.weight", f"{tower}.bias"
        x = features.reshape(groups * size, width)
        t = torch.nn.functional.linear(x, params[weight], params.get(bias))
        unit, inverse = unit_and_inverse(t)
        return cls(x, unit.view(groups, size, -1), inverse.view(groups, size, 1), weight, bias, bias in params)

    @property
    def features(self) -> Tensor:
        """What the head is linear in, (G, B, D), with a 1 behind it where there is a bias."""
        x = self.x.view(*self.unit.shape[:2], -1)
        return torch.nn.functional.pad(x, (0, 1), value=1.0) if self.biased else x

    def pushed(self, directions: Params) -> Tensor:
        """du, (k, G, B, E)."""
        dW = directions[self.weight]  # (k, E, D)
        # One product of all directions is faster than one for each; their order costs the next ones nothing.
        dt = (self.x @ dW.flatten(0, 1).mT).view(*self.unit.shape[:2], *dW.shape[:2])
        if self.bias in directions:
            dt += directions[self.bias]
        return self.across(dt.permute(2, 0, 1, 3))

    def pulled(self, cotangent: Tensor) -> Params:
        """Gradients (k, ...) of this head's weights for ū (k, G, B, E)."""
        t = self.across(cotangent).flatten(1, 2)  # (k, N, E)
        return {self.weight: t.mT @ self.x, self.bias: t.sum(1)}

    def across(self, moved: Tensor) -> Tensor:
        """What is left of a change of t in u, in place; the same map both ways, being symmetric."""
        along = torch.linalg.vecdot(moved, self.unit)[..., None]
        return moved.addcmul_(along, self.unit, value=-1).mul_(self.inverse)


@dataclass(frozen=True)
class AtParams:
    """S (G, B, B) of a stack at some weights, false negatives excluded, and S as a linear map of the weights."""

    S: Tensor
    scale: float
    excluded: Tensor | None
    text: Side
    image: Side
    params: Params

    @classmethod
    @torch.no_grad()
    def of(cls, objective: Objective, params: Params, part: Stack | Batch) -> AtParams:
        """Evaluate it; of one batch G = 1."""
        stack = part if isinstance(part, Stack) else Stack.of([part])
        text, image = Side.of(stack.texts, params, "text"), Side.of(stack.images, params, "image")
        S = objective.scale * (text.unit @ image.unit.mT)
        if objective.bias:
            S = S + objective.bias
        excluded = false_negatives(stack.caption_group, stack.image_group) if objective.mask_duplicates else None
        if excluded is not None:
            S = S.masked_fill(excluded, EXCLUDED)
        return cls(S, objective.scale, excluded, text, image, params)

    def side(self, tower: str) -> Side:
        """The head of `text` or of `image`."""
        return self.text if tower == "text" else self.image

    @torch.no_grad()
    def cotangents(self, tower: str, cotangents: Tensor) -> Tensor:
        """Those at the un-normalised embeddings of a tower, (k, G, B, E), for c (k, G, B, B), zero where excluded."""
        if tower == "text":
            return self.text.across(self.scale * (cotangents @ self.image.unit))
        return self.image.across(self.scale * (cotangents.mT @ self.text.unit))

    @torch.no_grad()
    def push(self, directions: Tensor) -> Tensor:
        """dS (k, G, B, B) for directions (k, P)."""
        tangents = unflatten(directions, self.params)
        du, dv = self.text.pushed(tangents), self.image.pushed(tangents)
        dS = (du @ self.image.unit.mT).add_(self.text.unit @ dv.mT).mul_(self.scale)
        return dS if self.excluded is None else dS.masked_fill_(self.excluded, 0.0)

    @torch.no_grad()
    def pull(self, cotangents: Tensor) -> Tensor:
        """Jᵀc, (k, P), for c (k, G, B, B), summed over the batches."""
        c = self.scale * cotangents
        if self.excluded is not None:
            c.masked_fill_(self.excluded, 0.0)
        gradients = self.text.pulled(c @ self.image.unit) | self.image.pulled(c.mT @ self.text.unit)
        return flatten({name: gradients[name] for name in self.params}, leading=1)
