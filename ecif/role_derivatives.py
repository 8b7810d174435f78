"""Directional derivatives of both roles in closed form: dS in, dPos and dNeg out (design section 6).

With m_k = Σ_j p[k,j] dS[k,j] and p̃ the softmax over the row without entry n,

    d(−log p[n,n])      = (1 − p[n,n]) · ( Σ_j p̃[n,j] dS[n,j] − dS[n,n] )
    d(−log(1 − p[k,n])) = p[k,n] · (dS[k,n] − m_k) / (1 − p[k,n]) = p[k,n] · ( dS[k,n] − Σ_j p̃[k,j] dS[k,j] )
    d p[k,n]            = p[k,n] · (dS[k,n] − m_k)

and the twins along columns. The forms in p̃ serve the one entry per row whose p may round to 1; elsewhere
p ≤ ½ and the forms in m are safe. All are linear in dS, so a stack of directions costs one formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.roles import Negative, check_mode, hardest_negatives, own_terms
from ecif.similarity import EXCLUDED


def positive_derivative(S: Tensor, dS: Tensor) -> Tensor:
    """dPos, (..., B). S (B, B); dS (..., B, B), the change of S along each direction."""
    return _own_loss(S, dS) + _own_loss(S.mT, dS.mT)


def negative_derivative(S: Tensor, dS: Tensor, mode: Negative = "exact") -> Tensor:
    """dNeg, (..., B). S (B, B); dS (..., B, B).

    Raises:
        ValueError: an unknown mode.
    """
    check_mode(mode)
    return (_off_diagonal(S, dS, mode) + _off_diagonal(S.mT, dS.mT, mode)).sum(-2)


def _without(S: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
    """(logsumexp (B,), softmax (B, B)) of every row of S without its one marked entry."""
    rest = S.masked_fill(entry, EXCLUDED)
    return rest.logsumexp(-1), rest.softmax(-1)


def _own_loss(S: Tensor, dS: Tensor) -> Tensor:
    own = own_terms(S)
    others, softmax = _without(S, own)
    # Without negatives the softmax is arbitrary, and the factor 1 − p[n,n] is exactly 0.
    pull = (softmax.masked_fill(own, 0.0) * dS).sum(-1) - dS.diagonal(dim1=-2, dim2=-1)
    return torch.sigmoid(others - S.diagonal()) * pull


def _off_diagonal(S: Tensor, dS: Tensor, mode: Negative) -> Tensor:
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
