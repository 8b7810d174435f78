"""Random Kronecker projections of gradients, parameter by parameter (LoGra: Choe et al. 2024, arXiv 2405.13954).

The gradient G (E × D) of a linear map becomes L G R with L (a × E) and R (D × b); all other parameters together are one
vector, projected by one random matrix. Departures: L and R are orthonormal rather than Gaussian, so that Π Πᵀ = I and
the projected problem is exactly the original one with the parameters confined to a subspace; a side that is short
enough is kept whole; and no gradient is formed to be projected: coordinate k of Πg is the derivative along row k of Π,
so `push` along Π's rows gives the coordinates of all pairs of a batch at once. Π itself is never held, only L and R.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.linearise import directions_at_once
from ecif.parameters import Params, flatten, size, unflatten

SIZE = 512
"""Coordinates that a projection is given when nobody says how many: 4 KiB a pair in float32, both roles."""


@dataclass(frozen=True)
class Projection:
    """Π (K, P) with orthonormal rows; build it by `draw`.

    Attributes:
        left, right: (a, E) and (D, b) float64 of every linear map, by name.
        rest: (r, P') float64, for the other parameters in order of their names.
        like: all parameters as float64 tensors that hold no memory, for their shapes.
    """

    left: Params
    right: Params
    rest: Tensor
    like: Params

    @classmethod
    def draw(cls, like: Params, side: int, seed: int) -> Projection:
        """At most side × side coordinates for every linear map and for the rest, from the seed and the names' order.

        Raises:
            ValueError: side < 1.
        """
        if side < 1:
            raise ValueError(f"side must be at least 1, got {side}")
        device = next(iter(like.values())).device
        left, right = {}, {}
        for place, name in enumerate(sorted(like)):
            if like[name].ndim == 2:
                g = generator(seed, place)
                wide, deep = (_orthonormal(side, width, g) for width in like[name].shape)
                left[name], right[name] = wide.to(device), deep.mT.to(device)
        others = sum(tensor.numel() for name, tensor in like.items() if name not in left)
        rest = _orthonormal(side * side, others, generator(seed, len(like))).to(device)
        nothing = torch.zeros((), dtype=torch.float64, device=device)
        return cls(left, right, rest, {name: nothing.expand(tensor.shape) for name, tensor in like.items()})

    @classmethod
    def of_size(cls, like: Params, seed: int, size: int = SIZE) -> Projection:
        """The one with the longest sides that has at most `size` coordinates, or sides of 1."""
        return cls.draw(like, sides_of({name: tensor.shape for name, tensor in like.items()}, size), seed)

    @property
    def size(self) -> int:
        """K."""
        return sum(self.left[name].shape[0] * self.right[name].shape[1] for name in self.left) + self.rest.shape[0]

    @property
    def rows(self) -> Tensor:
        """Π written out: for small ones."""
        return self.up(torch.eye(self.size, dtype=torch.float64, device=self.rest.device))

    def row_chunks(self) -> Iterator[Tensor]:
        """Π's rows, (k, P) at a time, as many as memory allows."""
        count = directions_at_once(size(self.like))
        for chunk in torch.split(torch.eye(self.size, dtype=torch.float64, device=self.rest.device), count):
            yield self.up(chunk)

    def down(self, vectors: Tensor) -> Tensor:
        """Π·v, (..., K) float64, for (..., P)."""
        leading = vectors.ndim - 1
        G = unflatten(vectors, self.like)
        parts = [(self.left[name] @ G[name] @ self.right[name]).flatten(leading) for name in sorted(self.left)]
        others = {name: tensor for name, tensor in G.items() if name not in self.left}
        if others:
            parts.append(flatten(others, leading) @ self.rest.mT)
        return torch.cat(parts, -1)

    def up(self, coordinates: Tensor) -> Tensor:
        """Πᵀ·c, (..., P) float64, for (..., K)."""
        leading = coordinates.shape[:-1]
        sizes = [self.left[name].shape[0] * self.right[name].shape[1] for name in sorted(self.left)]
        *mine, rest = torch.split(coordinates.double(), [*sizes, self.rest.shape[0]], -1)
        made = {}
        for name, part in zip(sorted(self.left), mine, strict=True):
            L, R = self.left[name], self.right[name]
            made[name] = L.mT @ part.reshape(*leading, L.shape[0], R.shape[1]) @ R.mT
        others = {name: tensor for name, tensor in self.like.items() if name not in self.left}
        if others:
            made |= unflatten(rest @ self.rest, others)
        return flatten(made, len(leading))


def sides_of(shapes: Mapping[str, Sequence[int]], size: int = SIZE) -> int:
    """The longest side with which a projection of weights of these shapes has at most `size` coordinates, or 1."""
    groups = sum(len(shape) == 2 for shape in shapes.values())
    groups += any(len(shape) != 2 for shape in shapes.values())
    return max(1, math.isqrt(size // groups))


def _orthonormal(rows: int, width: int, g: torch.Generator) -> Tensor:
    """(min(rows, width), width)."""
    if rows >= width:
        return torch.eye(width, dtype=torch.float64)
    Q: Tensor = torch.linalg.qr(torch.randn(width, rows, dtype=torch.float64, generator=g))[0]
    return Q.mT.contiguous()
