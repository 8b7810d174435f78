"""The Gauss-Newton matrix of a small model, written out by way of the embeddings: fewer passes than parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev

from benchmarks.worlds import World
from ecif import Batch, GaussNewton, Objective, dense_matrix
from ecif.forward_mode import forward_mode
from ecif.parameters import Params, flatten, size

_AT_ONCE = 64


def gauss_newton_matrix(world: World, params: Params, ridge: float) -> Tensor:
    """Σ J_eᵀ G_e J_e + ridge·I, (P, P) float64: J_e the Jacobian of a batch's embeddings e, G_e `GaussNewton` in e."""
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
