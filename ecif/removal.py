"""What a set of pairs takes with it when it leaves (design sections 2 and 4.5): its gradient, and its predicted effect.

The terms of pairs that share a batch do not add, so both rest on the set form `roles.removal_loss`, batch by batch:

    θ̂_{−R} ≈ θ̂ + H⁻¹ ∇( Σ_{n∈R} Pos_n + Neg_R ),      L_val(after) − L_val(before) ≈ w·∇(…),  w = H⁻¹∇L_val.

Sums over the batches of all R partitions are to be divided by the number of partitions, as everywhere.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from ecif.batch import Batch
from ecif.forward_mode import forward_mode
from ecif.linearise import pull, push
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.roles import removal_loss


def removal_gradient(objective: Objective, params: Params, batch: Batch, removed: Tensor) -> Tensor:
    """∇( L(batch) − L(batch without the removed) ), (P,), for removed (B,) bool."""
    S, back = pull(objective, params, batch)
    with torch.no_grad():
        cotangent: Tensor = grad(partial(removal_loss, removed=removed))(S)
    return back(cotangent[None])[0]


def score_removals(objective: Objective, params: Params, batch: Batch, directions: Tensor, removed: Tensor) -> Tensor:
    """w·∇( L(batch) − L(batch without each set) ), (k, m), for directions (k, P) and m sets (m, B) bool."""
    S, dS = push(objective, params, batch, directions)

    def along(direction: Tensor, mask: Tensor) -> Tensor:
        moved: Tensor = jvp(partial(removal_loss, removed=mask), (S,), (direction,))[1]
        return moved

    with forward_mode(), torch.no_grad():
        scores: Tensor = vmap(vmap(along, (None, 0)), (0, None))(dS, removed)
    return scores
