"""S as a linear map of the parameters, batch by batch: directions pushed forward, cotangents pulled back.

`push` is J·v by forward mode, `pull` is Jᵀ·c by reverse mode, J = dS/dθ (B² × P), never formed. Several
directions share one evaluation of the model, being mapped over by vmap. Parameters that require gradients,
the model's frozen ones too, record no graph outside torch.func's own (hence no_grad). Both run inside
`forward_mode`, in the kernels that can be differentiated forwards, and twice (`docs/design.md`, section 5).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ecif import heads
from ecif.at_once import DIRECTIONS
from ecif.batches import Batch
from ecif.objective import Objective
from ecif.parameters import Params, flatten, unflatten


@contextmanager
def forward_mode() -> Iterator[None]:
    """Inside, attention runs in kernels with forward-mode and second derivatives.

    The fused attention kernels and the inference fast path of ``nn.MultiheadAttention`` have neither and
    raise NotImplementedError. The setting of before is restored on the way out.
    """
    _load()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@cache
def _load() -> None:
    """Let torch load its forward-mode rules now: it compiles them with its own deprecated torch.jit.script
    at the first jvp of a process, and that warning is not ours to pass on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


_NUMBERS = 2**26  # that directions made for such a mapping may hold: 512 MiB in float64


def directions_at_once(parameters: int, most: int = DIRECTIONS.most) -> int:
    """How many directions (P,) are made at a time: `most`, or fewer where there are many parameters."""
    return max(1, min(most, _NUMBERS // parameters))


def push(objective: Objective, params: Params, batch: Batch, directions: Tensor) -> tuple[Tensor, Tensor]:
    """(S (B, B), dS (k, B, B)) for directions (k, P); entries excluded from S have dS = 0."""

    if objective.closed_form(params):
        at = heads.AtParams.of(objective, params, batch)
        return at.S[0], at.push(heads.tangents(directions, params))[:, 0]

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
        S, dS = DIRECTIONS.fitting(len(directions), lambda size: vmap(along, chunk_size=size)(tangents))
    return S[0], dS


def pull(objective: Objective, params: Params, batch: Batch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(S (B, B), back) with back(c (k, B, B)) = Jᵀc (k, P)."""
    if objective.closed_form(params):
        at = heads.AtParams.of(objective, params, batch)
        return at.S[0], lambda cotangents: at.pull(cotangents[:, None])
    with forward_mode(), torch.no_grad():
        pulled = vjp(lambda p: objective.similarity(p, batch), params)
    S, reverse = pulled[0], pulled[1]

    def back(cotangents: Tensor) -> Tensor:
        with forward_mode(), torch.no_grad():
            if cotangents.shape[0] == 1:
                return flatten(reverse(cotangents[0])[0])[None]
            return DIRECTIONS.fitting(
                len(cotangents), lambda size: flatten(vmap(reverse, chunk_size=size)(cotangents)[0], leading=1)
            )

    return S, back
