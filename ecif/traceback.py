"""Trace-back: which training pairs could have moved the loss of a prediction (`docs/design.md`, section 8).

A query is one image among candidate texts, its loss a cross-entropy or a margin. With I = [positive-IF_n,
negative-IF_n] (P × 2) and the gradient g of that loss, relative influence (the paper's proposition 5.3) is the most
that a parameter move inside span(I) of bounded norm can change the loss, as a signed cosine:

    sign(g·Δθ_n) · ‖proj_span(I) g‖ / ‖g‖ ∈ [−1, 1],      ‖proj g‖² = cᵀ (IᵀI)⁺ c,  c = Iᵀg,  Δθ_n = −(I₁ + I₂).

A span does not know the lengths of what spans it, so both columns are brought to length 1 first; with r their cosine
the eigenvalues of IᵀI are then 1 ± r, and the pseudo-inverse leaves out the one that is nearly 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.func import jacrev, vjp, vmap

from ecif.batches import Batch
from ecif.linearise import AT_ONCE, forward_mode
from ecif.objective import Objective
from ecif.parameters import Params, flatten
from ecif.roles import Negative, negative, positive
from ecif.similarity import similarity_matrix

_SHORT = 1e-6  # a column so much shorter than the other is rounding, and spans nothing
_PARALLEL = 1e-8  # 1 − |r| below which two columns are one (an angle of 1.4e-4)


def relative_influence(influences: Tensor, gradient: Tensor) -> Tensor:
    """(..., B) float64 from both influence functions (B, 2, P) of every pair and gradients (..., P)."""
    wide, g = influences.double(), gradient.double()
    products = torch.einsum("brp,...p->...br", wide, g)
    return relative_influence_from_products(wide @ wide.mT, products, g.norm(dim=-1))


def relative_influence_from_products(gram: Tensor, products: Tensor, norm: Tensor) -> Tensor:
    """The same from inner products alone, so that sketches and projections can feed it.

    Args:
        gram: (B, 2, 2), IᵀI of every pair.
        products: (..., B, 2), Iᵀg.
        norm: (...), ‖g‖ of each gradient; where it is 0 so is the answer.
    """
    G, c = gram.double(), products.double()
    lengths = G.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()  # (B, 2)
    there = lengths > _SHORT * lengths.amax(-1, keepdim=True)
    unit = torch.where(there, c / torch.where(there, lengths, 1.0), 0.0)  # (..., B, 2)
    both = there.all(-1)
    r = torch.where(both, G[..., 0, 1] / torch.where(both, lengths.prod(-1), 1.0), 0.0).clamp(-1, 1)
    squared = _along(unit[..., 0] + unit[..., 1], 1 + r) + _along(unit[..., 0] - unit[..., 1], 1 - r)
    g = norm.double()[..., None]
    size = torch.where(g > 0, squared.clamp(min=0).sqrt() / torch.where(g > 0, g, 1.0), 0.0).clamp(max=1.0)
    return -c.sum(-1).sign() * size


def role_gradients(objective: Objective, params: Params, batch: Batch, mode: Negative = "exact") -> Tensor:
    """∇Pos_n and ∇Neg_n of every pair, (B, 2, P). 2·B backward passes: for small P only.

    `-curvature.solve(...)` of its rows are the influence functions that `relative_influence` takes.
    """

    def roles(p: Params) -> Tensor:
        S = objective.similarity(p, batch)
        return torch.stack([positive(S), negative(S, mode)], 1)

    with forward_mode(), torch.no_grad():
        gradients: Params = jacrev(roles, chunk_size=AT_ONCE)(params)
    return flatten(gradients, leading=2)


def _along(component: Tensor, eigenvalue: Tensor) -> Tensor:
    """One term of cᵀ(IᵀI)⁺c: its eigenvector is (1, ±1)/√2."""
    kept = eigenvalue > _PARALLEL
    return torch.where(kept, component.square() / (2 * torch.where(kept, eigenvalue, 1.0)), 0.0)


QueryLoss = Literal["cross_entropy", "margin"]


def candidate_scores(objective: Objective, params: Params, images: Tensor, candidates: Tensor) -> Tensor:
    """S (q, c) = s · cosine of every query image with every candidate text."""
    text, image = objective.embed(params, images, candidates)
    return similarity_matrix(text, image, objective.scale_of(params)).mT


def query_losses(S: Tensor, true: Tensor, predicted: Tensor, loss: QueryLoss) -> Tensor:
    """(q,): −log softmax(S)[true], or the margin S[predicted] − S[true]. true, predicted (q,) int64 places in c."""
    rows = torch.arange(S.shape[0], device=S.device)
    if loss == "margin":
        return S[rows, predicted] - S[rows, true]
    return S.logsumexp(1) - S[rows, true]


def query_gradients(
    objective: Objective,
    params: Params,
    images: Tensor,
    candidates: Tensor,
    true: Tensor,
    predicted: Tensor,
    loss: QueryLoss,
) -> Tensor:
    """∇ of every query's loss, (q, P)."""

    def losses(p: Params) -> Tensor:
        return query_losses(candidate_scores(objective, p, images, candidates), true, predicted, loss)

    with forward_mode(), torch.no_grad():
        reverse = vjp(losses, params)[1]
        each = torch.eye(len(true), device=true.device, dtype=next(iter(params.values())).dtype)
        return flatten(vmap(reverse, chunk_size=32)(each)[0], leading=1)
