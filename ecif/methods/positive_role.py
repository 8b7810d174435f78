"""Influence of the positive role alone: TracIn, IF-EKFAC and TRAK. Signs as everywhere: negative = harmful.

TracIn (Pruthi et al. 2020): Σ_c η_c ∇L_val(θ_c)·∇Pos_n(θ_c) over checkpoints. IF-EKFAC (Grosse et al. 2023):
∇L_val·H⁻¹∇Pos_n with EK-FAC's H at the end. Both take a pair's loss for a function of that pair.

TRAK (Park et al. 2023) takes margins, a random projection Π and the kernel of their gradients. The output functions
of a pair are its margins f = log p/(1 − p) in its row and in its column, each with a logistic loss log(1 + e^−f) in
Pos_n, whose second derivative in f is p(1 − p). So over both sides of all pairs

    w = Πᵀ · ( Σ p(1 − p)·Π∇f·(Π∇f)ᵀ + N(δ + λ)·I )⁻¹ · Π∇L_val,      score_n = w·∇Pos_n = −w·Σ_sides (1 − p)·∇f.

The kernel's gradients are not formed one by one: pulled back along random signs, √(p(1 − p))·∇f of a whole batch have
the kernel for their second moment. With as many draws as a batch has margins each is taken alone, which is exact.

Departures from TRAK: the gradient of L_val stands for the query; ridge as everywhere here, so that the sign and the
units are those of IS; one model instead of an ensemble (averaging several models' scores is the caller's); the paper
leaves p(1 − p) out of the kernel, here it gives the kernel the units of the ridge; the scored gradient is not
projected, as its product with w is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ecif.batches import Batch, generator
from ecif.curvature.dense import cholesky
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.projection import Projection
from ecif.linearise import directions_at_once, pull
from ecif.objective import Batches, Objective
from ecif.parameters import Params, size
from ecif.scoring import score_batch


def tracin(
    objective: Objective,
    checkpoints: Sequence[Params],
    learning_rates: Sequence[float],
    gradients: Sequence[Tensor],
    batch: Batch,
) -> Tensor:
    """(B,) float64 for one batch.

    Args:
        checkpoints, learning_rates: along the training, alike in number.
        gradients: ∇L_val (P,) at each checkpoint.

    Raises:
        ValueError: their numbers differ.
    """
    total = torch.zeros(batch.size, dtype=torch.float64, device=batch.texts.device)
    for params, rate, gradient in zip(checkpoints, learning_rates, gradients, strict=True):
        total += rate * score_batch(objective, params, batch, gradient[None]).pair[0].double()
    return total


def ekfac_influence(objective: Objective, params: Params, batch: Batch, curvature: Ekfac, gradient: Tensor) -> Tensor:
    """(B,) for one batch; gradient is ∇L_val (P,). For many batches solve once and use `score_batch`."""
    return score_batch(objective, params, batch, curvature.solve(gradient[None]).x).pair[0]


def trak_kernel(
    objective: Objective, params: Params, batches: Batches, projection: Projection, *, draws: int, seed: int = 0
) -> Tensor:
    """Σ p(1 − p)·Π∇f·(Π∇f)ᵀ, (K, K) float64, averaged over the partitions, in one pass: estimated by `draws` reverse
    passes through each batch, exact where a batch has no more margins (2B)."""
    total = torch.zeros(projection.size, projection.size, dtype=torch.float64, device=projection.rest.device)
    for place, batch in enumerate(batches()):
        S, back = pull(objective, params, batch)
        mixing = _mixing(objective.loss.outputs(batch.size), draws, generator(seed, place)).to(S)
        at_once = min(directions_at_once(size(params)), directions_at_once(batch.size**2))
        for some in torch.split(mixing, at_once):
            features = projection.down(back(objective.loss.mixed_outputs(S, some)))
            total += features.mT @ features
    return total / objective.partitions


def trak_direction(projection: Projection, kernel: Tensor, gradient: Tensor, ridge: float) -> Tensor:
    """w (k, P) float64 for gradients ∇L_val (k, P), to be scored along by `score_batch(…).pair`.

    Args:
        ridge: N(δ + λ) > 0, `Objective.ridge`.

    Raises:
        NegativeCurvature: it is lost in rounding.
        ValueError: it is 0.
    """
    if not ridge > 0:
        raise ValueError("trak needs l2 or damping above 0")
    M = kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    inside = torch.cholesky_solve(projection.down(gradient).mT, cholesky(M)).mT
    return projection.up(inside)


def _mixing(margins: int, draws: int, g: torch.Generator) -> Tensor:
    """M (k, margins) with E[MᵀM] = I: random signs over √draws, or the identity where it is no larger."""
    if margins <= draws:
        return torch.eye(margins)
    return (2 * torch.randint(2, (draws, margins), generator=g) - 1) / math.sqrt(draws)
