"""S as a linear map of the parameters, batch by batch: directions pushed forward, cotangents pulled back.

`push` is J·v by forward mode, `pull` is Jᵀ·c by reverse mode, J = dS/dθ (B² × P), never formed. Several
directions share one evaluation of the model, being mapped over by vmap. Parameters that require gradients,
the model's frozen ones too, record no graph outside torch.func's own (hence no_grad).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from ecif.batch import Batch
from ecif.forward_mode import forward_mode
from ecif.objective import Objective
from ecif.parameters import Params, flatten, unflatten

AT_ONCE = 32  # directions mapped over together: memory grows with it, the shared primal gets cheaper


def push(objective: Objective, params: Params, batch: Batch, directions: Tensor) -> tuple[Tensor, Tensor]:
    """(S (B, B), dS (k, B, B)) for directions (k, P); entries excluded from S have dS = 0."""

    def along(tangents: Params) -> tuple[Tensor, Tensor]:
        moved = jvp(lambda p: objective.similarity(p, batch), (params,), (tangents,))
        return moved[0], moved[1]

    tangents = unflatten(directions, params)
    with forward_mode(), torch.no_grad():
        if directions.shape[0] == 0:
            S = objective.similarity(params, batch)
            return S, S.new_zeros(0, *S.shape)
        if directions.shape[0] == 1:  # spares models the batching rules of vmap
            S, dS = along({name: tensor[0] for name, tensor in tangents.items()})
            return S, dS[None]
        S, dS = vmap(along, chunk_size=AT_ONCE)(tangents)
    return S[0], dS


def pull(objective: Objective, params: Params, batch: Batch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(S (B, B), back) with back(c (k, B, B)) = Jᵀc (k, P)."""
    with forward_mode(), torch.no_grad():
        pulled = vjp(lambda p: objective.similarity(p, batch), params)
    S, reverse = pulled[0], pulled[1]

    def back(cotangents: Tensor) -> Tensor:
        with forward_mode(), torch.no_grad():
            if cotangents.shape[0] == 1:
                return flatten(reverse(cotangents[0])[0])[None]
            return flatten(vmap(reverse, chunk_size=AT_ONCE)(cotangents)[0], leading=1)

    return S, back
