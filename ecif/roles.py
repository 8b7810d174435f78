"""What leaves the loss when pairs are removed (design section 2; the paper's positive and negative role).

With p the softmax of S along rows and q along columns,

    Pos_n = −log p[n,n] − log q[n,n]
    Neg_n = Σ_{k≠n} ( −log(1 − p[k,n]) − log(1 − q[n,k]) )        "exact"
    Neg_n ≈ Σ_{k≠n} ( p[k,n] + q[n,k] )                           "taylor", the paper's first order

Each is a term of the rows of S plus the same term of the rows of Sᵀ, so one row form is written for both.
S comes with false negatives at `EXCLUDED`. Departure from the paper: its printed first-order term in
secondary sources is the reciprocal of a softmax, which a finite difference refutes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ecif.similarity import EXCLUDED

Negative = Literal["exact", "taylor"]


def own_terms(S: Tensor) -> Tensor:
    """(B, B) bool identity on the device of S: the pairs' own terms."""
    return torch.eye(S.shape[-1], dtype=torch.bool, device=S.device)


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ) to full precision (torch's own is linear above 20, which float64 notices)."""
    return -logsigmoid(-x)


def hardest_negatives(S: Tensor) -> Tensor:
    """(B, B) bool, one True per row: its largest entry off the diagonal.

    No other entry off the diagonal can have a probability above ½, so only this one needs its
    complement 1 − p summed explicitly. With B = 1 it is the lone diagonal entry.
    """
    top = S.detach().masked_fill(own_terms(S), -torch.inf).argmax(-1, keepdim=True)
    return torch.arange(S.shape[-1], device=S.device) == top


def positive(S: Tensor) -> Tensor:
    """Pos_n, (B,) ≥ 0. S (B, B). A pair with no negatives has 0."""
    return _own_loss(S) + _own_loss(S.mT)


def negative(S: Tensor, mode: Negative = "exact") -> Tensor:
    """Neg_n, (B,) ≥ 0. S (B, B); right in float32 at any saturation: S = 60 gives 60, gradient ±1.

    Raises:
        ValueError: an unknown mode.
    """
    check_mode(mode)
    term = _removed_from_row if mode == "exact" else _probability_in_row
    return (term(S) + term(S.mT)).sum(0)


def removal_loss(S: Tensor, removed: Tensor) -> Tensor:
    """L(batch) − L(batch without R), a scalar, for a set R inside one batch; the terms do not add.

        Σ_{n∈R} Pos_n + Σ_{k∉R} ( −log(1 − Σ_{n∈R} p[k,n]) − log(1 − Σ_{n∈R} q[n,k]) )

    S: (B, B). removed: (B,) bool.
    """
    stays = ~removed
    total = torch.where(removed, positive(S), 0.0).sum()
    for rows in (S, S.mT):
        leaving = rows.masked_fill(stays, EXCLUDED).logsumexp(-1)
        staying = rows.masked_fill(removed, EXCLUDED).logsumexp(-1)
        total = total + torch.where(stays, softplus(leaving - staying), 0.0).sum()
    return total


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` names a form of the negative role."""
    if mode not in ("exact", "taylor"):
        raise ValueError(f'negative must be "exact" or "taylor", got {mode!r}')


def _own_loss(S: Tensor) -> Tensor:
    """−log p[n,n] = softplus(logsumexp_{j≠n} S[n,j] − S[n,n]), (B,): exact where p[n,n] rounds to 1."""
    others = S.masked_fill(own_terms(S), EXCLUDED).logsumexp(-1)
    return softplus(others - S.diagonal())


def _removed_from_row(S: Tensor) -> Tensor:
    """−log(1 − p[k,n]) for k ≠ n, (B, B), zero on the diagonal.

    The hardest negative: softplus(S[k,n] − logsumexp_{j≠n} S[k,j]). The others have p ≤ ½: −log1p(−p).
    """
    own, hardest = own_terms(S), hardest_negatives(S)
    hard = softplus(torch.where(hardest, S, 0.0).sum(-1) - S.masked_fill(hardest, EXCLUDED).logsumexp(-1))
    easy = -torch.log1p(-S.softmax(-1).masked_fill(own | hardest, 0.0))
    return torch.where(hardest, hard[:, None], easy).masked_fill(own, 0.0)


def _probability_in_row(S: Tensor) -> Tensor:
    """p[k,n] for k ≠ n, (B, B), zero on the diagonal."""
    return S.softmax(-1).masked_fill(own_terms(S), 0.0)
