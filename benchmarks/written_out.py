"""Curvatures that only a benchmark needs: a small model's Gauss-Newton matrix written out, and its blocks alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev

from benchmarks.worlds import World
from ecif import Batch, GaussNewton, Objective, OnState, Solution, State, conjugate_gradients, dense_matrix
from ecif.linearise import forward_mode
from ecif.parameters import Params, flatten, size

_AT_ONCE = 64


def gauss_newton_matrix(world: World, params: Params, ridge: float) -> Tensor:
    """Σ J_eᵀ G_e J_e + ridge·I, (P, P) float64: J_e the Jacobian of a batch's embeddings e, G_e `GaussNewton` in e.

    By way of the embeddings: fewer passes than parameters.
    """
    total = ridge * torch.eye(size(params), dtype=torch.float64)
    for batch in world.train:

        def embeddings(p: Params, batch: Batch = batch) -> Tensor:
            text, image = world.objective.embed(p, batch.images, batch.texts)
            return flatten({"image": image, "text": text})

        with forward_mode(), torch.no_grad():
            text, image = world.objective.embed(params, batch.images, batch.texts)
            J = flatten(jacrev(embeddings, chunk_size=_AT_ONCE)(params), leading=1)
        total += J.mT @ _in_embeddings(world.objective, {"image": image, "text": text}, batch) @ J
    return (total + total.mT) / 2


def _in_embeddings(objective: Objective, embedded: Params, batch: Batch) -> Tensor:
    """`GaussNewton` of one batch with its own embeddings as the parameters."""
    alone = Objective(
        lambda p, _images, _texts: (p["text"], p["image"]),
        objective.scale,
        0.0,
        embedded,
        batch.size,
        mask_duplicates=objective.mask_duplicates,
    )
    return dense_matrix(GaussNewton(alone, embedded, lambda: [batch]))


@dataclass(frozen=True)
class Blocks:
    """A curvature without its blocks between parameters, inverted by conjugate gradients. apply: the whole one's."""

    apply: Callable[[Tensor], Tensor]
    masks: Tensor

    def solve(self, rhs: Tensor, *, state: State | None = None, on_state: OnState | None = None) -> Solution:
        """Block by block, in the same products."""
        masks = self.masks

        def within(vectors: Tensor) -> Tensor:
            parts = (vectors[:, None] * masks).flatten(0, 1)
            moved = self.apply(parts).reshape(len(vectors), len(masks), -1)
            return (moved * masks).sum(1)

        return conjugate_gradients(within, rhs, tolerance=1e-5, max_iterations=2000)


def block_diagonal(apply: Callable[[Tensor], Tensor], params: Params) -> Blocks:
    """The blocks of single parameters of a curvature given by its product with (k, P)."""
    which = flatten({name: torch.full(tensor.shape, float(i)) for i, (name, tensor) in enumerate(params.items())})
    return Blocks(apply, torch.stack([(which == i).double() for i in range(len(params))]))
