"""Trace-back: which training pairs could have moved the loss of a prediction (`docs/design.md`, section 8).

A query is one image among candidate texts, its loss a cross-entropy or a margin. With I = [positive-IF_n,
negative-IF_n] (P × 2) and the gradient g of that loss, relative influence (the paper's proposition 5.3) is the most
that a parameter move inside span(I) of bounded norm can change the loss, as a signed cosine:

    sign(g·Δθ_n) · ‖proj_span(I) g‖ / ‖g‖ ∈ [−1, 1],      ‖proj g‖² = cᵀ (IᵀI)⁺ c,  c = Iᵀg,  Δθ_n = −(I₁ + I₂).

A span does not know the lengths of what spans it, so both columns are brought to length 1 first; with r their cosine
the eigenvalues of IᵀI are then 1 ± r, and the pseudo-inverse leaves out the one that is nearly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.func import jacrev, vjp, vmap

from ecif.at_once import DIRECTIONS
from ecif.batches import Batch
from ecif.linearise import forward_mode
from ecif.objective import Objective
from ecif.parameters import Params, flatten, size
from ecif.roles import Negative
from ecif.similarity import similarity_matrix

if TYPE_CHECKING:
    from ecif.curvature import Curvature  # which imports this file

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


def role_gradients(
    objective: Objective, params: Params, batch: Batch, mode: Negative = "exact", of: Tensor | None = None
) -> Tensor:
    """∇Pos_n and ∇Neg_n of every pair, (B, 2, P), or of those that `of` (m,) names, (m, 2, P). Twice as many backward
    passes: for small P only.

    `-curvature.solve(...)` of its rows are the influence functions that `relative_influence` takes.
    """

    def roles(p: Params) -> Tensor:
        S = objective.similarity(p, batch)
        both = torch.stack([objective.loss.positive(S), objective.loss.negative(S, mode)], 1)
        return both[slice(None) if of is None else of]

    with forward_mode(), torch.no_grad():
        gradients: Params = DIRECTIONS.fitting(DIRECTIONS.most, lambda size: jacrev(roles, chunk_size=size)(params))
    return flatten(gradients, leading=2)


def influence_gram(
    objective: Objective, params: Params, batch: Batch, curvature: Curvature, mode: Negative = "exact"
) -> Tensor:
    """IᵀI of every pair's influence functions, (B, 2, 2) float64, from explicit gradients: for small P only."""
    gradients = role_gradients(objective, params, batch, mode)
    solved = curvature.solve(gradients.flatten(0, 1).double()).x.reshape(*gradients.shape[:2], -1)
    return solved @ solved.mT


def probed_gram(probes: Tensor) -> Tensor:
    """The same from scores of both roles (k, B, 2) along x = H⁻¹z with z of covariance I (`normal_probes`), averaged
    over the partitions.

    E[(H⁻¹z·a)(H⁻¹z·b)] = aᵀH⁻²b; the mean over k probes is unbiased.
    """
    return torch.einsum("kbr,kbs->brs", probes, probes) / len(probes)


def span_relative_standard_error(probes: int) -> float:
    """1/√(2k), of the lengths that `probed_gram` estimates, and so of what a relative influence is divided by: half of
    √(2/k), that of their squares."""
    return 1 / math.sqrt(2 * probes)


def normal_probes(params: Params, k: int, seed: int) -> Tensor:
    """z (k, P) float64 of covariance I, to be solved for and pushed forward for `probed_gram`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, size(params), dtype=torch.float64, generator=generator)


@dataclass(frozen=True)
class Responsible:
    """The training pairs most responsible for q queries, `top` each, the most responsible first.

    Attributes:
        places: (q, top) int64, among the training pairs.
        relative_influence: (q, top) float64 in [−1, 1]; negative = without the pair the query's loss would be lower.
        positive_influence, negative_influence: (q, top) float64, both roles' change of the query's loss on removal.
    """

    places: Tensor
    relative_influence: Tensor
    positive_influence: Tensor
    negative_influence: Tensor

    @property
    def influence(self) -> Tensor:
        """(q, top) float64, the change of the query's loss when the pair is removed."""
        return self.positive_influence + self.negative_influence


@dataclass(frozen=True)
class SpanProducts:
    """The products of N pairs with q queries, averaged over R partitions; batches are added in place.

    Attributes:
        products: (q, N, 2) float64 on the CPU, (H⁻¹g)·∇Pos_n and (H⁻¹g)·∇Neg_n.
        norms: (q,), ‖g‖.
        partitions: R.
    """

    products: Tensor
    norms: Tensor
    partitions: int

    @classmethod
    def start(cls, norms: Tensor, n: int, partitions: int) -> SpanProducts:
        """Before the first batch."""
        products = torch.zeros(len(norms), n, 2, dtype=torch.float64)
        return cls(products, norms.cpu(), partitions)

    def add(self, places: Tensor, products: Tensor) -> None:
        """Add a batch of the pairs at `places` (B,): products (q, B, 2)."""
        self.products[:, places] += products.double().cpu() / self.partitions

    def most_responsible(self, gram: Tensor, top: int, among: int) -> Responsible:
        """The `top` pairs of each query among the first `among` of the N; without one the query's loss were lower.

        gram: (N, 2, 2), IᵀI of the pairs' influence functions, which are averaged over the partitions before.
        """
        products = self.products[:, :among]
        # The influence functions carry a minus sign, and so do their products with a gradient.
        relative = relative_influence_from_products(gram[:among].cpu(), -products, self.norms)
        order = relative.argsort(dim=1, stable=True)[:, : min(top, among)]
        positive, negative = (products[..., role].gather(1, order) for role in (0, 1))
        return Responsible(order, relative.gather(1, order), positive, negative)


def _along(component: Tensor, eigenvalue: Tensor) -> Tensor:
    """One term of cᵀ(IᵀI)⁺c: its eigenvector is (1, ±1)/√2."""
    spans = eigenvalue > _PARALLEL
    return torch.where(spans, component.square() / (2 * torch.where(spans, eigenvalue, 1.0)), 0.0)


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
        return DIRECTIONS.fitting(len(each), lambda size: flatten(vmap(reverse, chunk_size=size)(each)[0], leading=1))
