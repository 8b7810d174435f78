"""Random Kronecker projections of gradients, parameter by parameter (LoGra: Choe et al. 2024, arXiv 2405.13954).

The gradient G (E × D) of a linear map becomes L G R with L (a × E) and R (D × b); any other parameter's is projected
by one random matrix. Departures: L and R are orthonormal rather than Gaussian, so that Π Πᵀ = I and the projected
problem is exactly the original one with the parameters confined to a subspace; a side that is short enough is kept
whole; and no gradient is formed to be projected: coordinate k of Πg is the derivative along row k of Π, so `push`
along Π's rows gives the coordinates of all pairs of a batch at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.parameters import Params, flatten
from ecif.seeds import generator


@dataclass(frozen=True)
class Projection:
    """Π (K, P) with orthonormal rows; float64."""

    rows: Tensor

    @classmethod
    def draw(cls, like: Params, side: int, seed: int) -> Projection:
        """At most side × side coordinates for every parameter, drawn from the seed and the order of the names.

        Raises:
            ValueError: side < 1.
        """
        if side < 1:
            raise ValueError(f"side must be at least 1, got {side}")
        parts = []
        for place, name in enumerate(sorted(like)):
            tensor = like[name]
            g = generator(seed, place)
            if tensor.ndim == 2:
                left, right = (_orthonormal(side, width, g) for width in tensor.shape)
                block = torch.kron(left, right)
            else:
                block = _orthonormal(side * side, tensor.numel(), g)
            empty = {n: torch.zeros(len(block), *t.shape, dtype=torch.float64) for n, t in like.items()}
            parts.append(flatten(empty | {name: block.reshape(len(block), *tensor.shape)}, leading=1))
        return cls(torch.cat(parts).to(next(iter(like.values())).device))

    @property
    def size(self) -> int:
        """K."""
        return self.rows.shape[0]

    def down(self, vectors: Tensor) -> Tensor:
        """Π·v, (..., K) float64, for (..., P)."""
        return vectors.double() @ self.rows.mT

    def up(self, coordinates: Tensor) -> Tensor:
        """Πᵀ·c, (..., P) float64, for (..., K)."""
        return coordinates.double() @ self.rows


def _orthonormal(rows: int, width: int, g: torch.Generator) -> Tensor:
    if rows >= width:
        return torch.eye(width, dtype=torch.float64)
    Q: Tensor = torch.linalg.qr(torch.randn(width, rows, dtype=torch.float64, generator=g))[0]
    return Q.mT.contiguous()
