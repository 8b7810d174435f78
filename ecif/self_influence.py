"""Self-influence g_nᵀH⁻¹g_n ≥ 0 with g_n = ∇(Pos_n + Neg_n) (`docs/design.md`, sections 3 and 5).

Exact: per-pair gradients and a solve for each. By probes: for z of covariance H, x = H⁻¹z has covariance H⁻¹, so
``E[(g_n·x)²] = g_nᵀH⁻¹g_n``; the mean over k probes is unbiased, never negative, costs k solves and one forward
pass, and has relative standard error √(2/k) (z is a sum over many pairs, hence close to normal).

The Hessian has no square root to draw z from. With z of the covariance G of Gauss-Newton, x = H⁻¹z and its partner
y = G⁻¹z have the cross-covariance H⁻¹GG⁻¹ = H⁻¹, so ``E[(g_n·x)(g_n·y)]`` is right too; its relative standard error is
√((1 + 1/ρ²)/k), ρ being the correlation of the two factors, and a single estimate may be below 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev

from ecif.at_once import DIRECTIONS
from ecif.batches import Batch, generator
from ecif.curvature.base import Curvature
from ecif.linearise import forward_mode, pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, flatten, row_dot, size
from ecif.roles import Negative
from ecif.scoring import BatchScores
from ecif.sums import Sums, Term, summed


@dataclass(frozen=True)
class SelfInfluence:
    """value (B,) in units of the summed loss; relative_standard_error of each (0 where exact)."""

    value: Tensor
    relative_standard_error: float


def pair_gradients(
    objective: Objective, params: Params, batch: Batch, mode: Negative = "exact", of: Tensor | None = None
) -> Tensor:
    """g_n = ∇(Pos_n + Neg_n) of every pair, (B, P), or of those that `of` (m,) names, (m, P). As many backward passes:
    for small P only."""
    some, loss = slice(None) if of is None else of, objective.loss
    if objective.closed_form(params):
        S, back = pull(objective, params, batch)
        with forward_mode(), torch.no_grad():
            return back(jacrev(lambda moved: (loss.positive(moved) + loss.negative(moved, mode))[some])(S))

    def role_sum(p: Params) -> Tensor:
        S = objective.similarity(p, batch)
        return (loss.positive(S) + loss.negative(S, mode))[some]

    with forward_mode(), torch.no_grad():
        gradients: Params = DIRECTIONS.fitting(DIRECTIONS.most, lambda size: jacrev(role_sum, chunk_size=size)(params))
    return flatten(gradients, leading=1)


def exact_self_influence(
    objective: Objective, params: Params, batch: Batch, curvature: Curvature, mode: Negative = "exact"
) -> SelfInfluence:
    """(B,) float64, through per-pair gradients; with `Dense` for up to 4,096 parameters."""
    gradients = pair_gradients(objective, params, batch, mode).double()
    return SelfInfluence(row_dot(gradients, curvature.solve(gradients).x), 0.0)


@dataclass(frozen=True)
class Draws(Term):
    """k draws, (k, P) float64, of the covariance Σ Jᵀ(∇²_S L)J."""

    k: int
    seed: int

    def of(self, objective: Objective, params: Params, batches: Iterable[Batch], first: int) -> Sums:
        device = next(iter(params.values())).device
        total = torch.zeros(self.k, size(params), dtype=torch.float64, device=device)
        for place, batch in enumerate(batches, first):
            S, back = pull(objective, params, batch)
            total += back(objective.loss.sample_root(S, self.k, generator(self.seed, place)))
        return {"draws": total}


def probe_rhs(objective: Objective, params: Params, batches: Batches, k: int, seed: int, damping: float) -> Tensor:
    """k draws z (k, P) float64 of covariance (1/R) Σ Jᵀ(∇²_S L)J + N(δ + λ)·I, to be solved for with
    the `GaussNewton` of the same damping.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"at least one probe is needed, got {k}")
    P, device = size(params), next(iter(params.values())).device
    noise = torch.randn(k, P, dtype=torch.float64, generator=generator(seed, -1)).to(device)
    total = summed(Draws(k, seed), objective, params, batches())["draws"]
    # Partitions are averaged in H, so each contributes 1/R of its variance, 1/√R of its draw.
    return total / math.sqrt(objective.partitions) + math.sqrt(objective.ridge(damping)) * noise


def probed_self_influence(scores: BatchScores) -> SelfInfluence:
    """The estimate (B,) from the scores of a batch along the k solved probes x (k, P) as directions."""
    estimate = scores.total.double().square().mean(0)
    return SelfInfluence(estimate, probed_relative_standard_error(scores.total.shape[0]))


def averaged_self_influence(along_probes: Tensor, along_partners: Tensor | None = None) -> Tensor:
    """The estimate (N,) from scores along k solved probes (N, k), and their partners if they have any, that were
    averaged over the partitions."""
    other = along_probes if along_partners is None else along_partners
    return (along_probes.double() * other.double()).mean(1)


def probed_relative_standard_error(probes: int) -> float:
    """√(2/k): each square is close to g_nᵀH⁻¹g_n times a χ² of one degree of freedom."""
    return math.sqrt(2 / probes)
