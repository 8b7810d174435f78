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


def tangents(directions: Tensor, like: Params) -> Params:
    """Directions (k, P) as changes (k, ...) of each weight, in the dtype of `like`: once for a pass, as it copies."""
    return {name: tensor.contiguous() for name, tensor in unflatten(directions, like).items()}


def _rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """(G, B, k, M) of rows (G, B, k, L) and a matrix (G, L, M) that all k share: one product for each G, and no copies
    of the matrix."""
    G, B, k, L = rows.shape
    return (rows.reshape(G, B * k, L) @ matrix).view(G, B, k, matrix.shape[-1])


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

    def pushed(self, tangents: Params) -> Tensor:
        """du, (G, B, k, E)."""
        dW = tangents[self.weight]  # (k, E, D)
        dt = (self.x @ dW.flatten(0, 1).mT).view(*self.unit.shape[:2], *dW.shape[:2])
        if self.bias in tangents:
            dt += tangents[self.bias]
        return self.across(dt)

    def pulled(self, cotangent: Tensor) -> Params:
        """Gradients (k, ...) of this head's weights for ū (G, B, k, E)."""
        t = self.across(cotangent).flatten(0, 1)  # (N, k, E)
        dW = t.flatten(1).mT @ self.x
        return {self.weight: dW.view(*t.shape[1:], self.x.shape[1]), self.bias: t.sum(0)}

    def across(self, moved: Tensor) -> Tensor:
        """What is left of a change of t (G, B, k, E) in u, in place; the same map both ways, being symmetric."""
        unit = self.unit[..., None, :]
        along = torch.linalg.vecdot(moved, unit)[..., None]
        return moved.addcmul_(along, unit, value=-1).mul_(self.inverse[..., None])


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
        """Those at the un-normalised embeddings of a tower, (G, B, k, E), for c (k, G, B, B), zero where excluded."""
        return self.side(tower).across(self._unit_cotangents(tower, self.scale * cotangents))

    def _unit_cotangents(self, tower: str, c: Tensor) -> Tensor:
        """ū of a tower, (G, B, k, E), for s·c (k, G, B, B)."""
        if tower == "text":
            return _rows_times(c.permute(1, 2, 0, 3), self.image.unit)
        return _rows_times(c.permute(1, 3, 0, 2), self.text.unit)

    @torch.no_grad()
    def push(self, tangents: Params) -> Tensor:
        """dS (k, G, B, B) along `tangents`."""
        du, dv = self.text.pushed(tangents), self.image.pushed(tangents)
        dS = _rows_times(du, self.image.unit.mT).permute(2, 0, 1, 3)
        dS.add_(_rows_times(dv, self.text.unit.mT).permute(2, 0, 3, 1)).mul_(self.scale)
        return dS if self.excluded is None else dS.masked_fill_(self.excluded, 0.0)

    @torch.no_grad()
    def pull(self, cotangents: Tensor) -> Tensor:
        """Jᵀc, (k, P), for c (k, G, B, B), summed over the batches."""
        c = self.scale * cotangents
        if self.excluded is not None:
            c.masked_fill_(self.excluded, 0.0)
        gradients: Params = {}
        for tower in TOWERS:
            gradients |= self.side(tower).pulled(self._unit_cotangents(tower, c))
        return flatten({name: gradients[name] for name in self.params}, leading=1)
