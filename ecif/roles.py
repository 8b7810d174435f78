"""What leaves the loss when pairs are removed, and its directional derivatives (`docs/design.md`, sections 2 and 5).

With p the softmax of S along rows and q along columns, the paper's positive and negative role of pair n are

    Pos_n = −log p[n,n] − log q[n,n]
    Neg_n = Σ_{k≠n} ( −log(1 − p[k,n]) − log(1 − q[n,k]) )        "exact"
    Neg_n ≈ Σ_{k≠n} ( p[k,n] + q[n,k] )                           "taylor", the paper's first order

Each is a term of the rows of S plus the same term of the rows of Sᵀ, so one row form is written for both.
S comes with false negatives at `EXCLUDED`. Departure from the paper: its printed first-order term in
secondary sources is the reciprocal of a softmax, which a finite difference refutes.

Their derivatives along a change dS, with m_k = Σ_j p[k,j] dS[k,j] and p̃ the softmax over the row without entry n:

    d(−log p[n,n])      = (1 − p[n,n]) · ( Σ_j p̃[n,j] dS[n,j] − dS[n,n] )
    d(−log(1 − p[k,n])) = p[k,n] · (dS[k,n] − m_k) / (1 − p[k,n]) = p[k,n] · ( dS[k,n] − Σ_j p̃[k,j] dS[k,j] )
    d p[k,n]            = p[k,n] · (dS[k,n] − m_k)

and the twins along columns. The forms in p̃ serve the one entry per row whose p may round to 1; elsewhere
p ≤ ½ and the forms in m are safe. All are linear in dS, so a stack of directions costs one formula.
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
    """Pos_n, (..., B) ≥ 0. S (..., B, B). A pair with no negatives has 0."""
    return own_loss(S) + own_loss(S.mT)


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


def own_loss(S: Tensor) -> Tensor:
    """−log p[n,n] = softplus(logsumexp_{j≠n} S[n,j] − S[n,n]), (..., B): exact where p[n,n] rounds to 1."""
    others = S.masked_fill(own_terms(S), EXCLUDED).logsumexp(-1)
    return softplus(others - S.diagonal(dim1=-2, dim2=-1))


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


def positive_derivative(S: Tensor, dS: Tensor) -> Tensor:
    """dPos, (..., B). S (B, B) or of several batches; dS (..., B, B), the change of S along each direction."""
    return _own_loss_derivative(S, dS) + _own_loss_derivative(S.mT, dS.mT)


def negative_derivative(S: Tensor, dS: Tensor, mode: Negative = "exact") -> Tensor:
    """dNeg, (..., B), likewise.

    Raises:
        ValueError: an unknown mode.
    """
    check_mode(mode)
    return (_off_diagonal_derivative(S, dS, mode) + _off_diagonal_derivative(S.mT, dS.mT, mode)).sum(-2)


def _without(S: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
    """(logsumexp (..., B), softmax (..., B, B)) of every row of S without its one marked entry."""
    rest = S.masked_fill(entry, EXCLUDED)
    return rest.logsumexp(-1), rest.softmax(-1)


def _own_loss_derivative(S: Tensor, dS: Tensor) -> Tensor:
    own = own_terms(S)
    others, softmax = _without(S, own)
    # Without negatives the softmax is arbitrary, and the factor 1 − p[n,n] is exactly 0.
    pull = (softmax.masked_fill(own, 0.0) * dS).sum(-1) - dS.diagonal(dim1=-2, dim2=-1)
    return torch.sigmoid(others - S.diagonal(dim1=-2, dim2=-1)) * pull


def _off_diagonal_derivative(S: Tensor, dS: Tensor, mode: Negative) -> Tensor:
    own, hardest = own_terms(S), hardest_negatives(S)
    p = S.softmax(-1)
    mean = (p * dS).sum(-1, keepdim=True)
    weight = p.masked_fill(hardest | own, 0.0)
    easy = (weight / (1 - weight) if mode == "exact" else weight) * (dS - mean)

    others, softmax = _without(S, hardest)
    logit = torch.where(hardest, S, 0.0).sum(-1) - others
    pull = (torch.where(hardest, dS, 0.0) - softmax.masked_fill(hardest, 0.0) * dS).sum(-1)
    factor = torch.sigmoid(logit)  # p of the hardest negative
    if mode == "taylor":
        factor = factor * torch.sigmoid(-logit)  # p · (1 − p), the complement never by subtraction
    hard = (factor * pull)[..., None]
    return torch.where(hardest, hard, easy).masked_fill(own, 0.0)
