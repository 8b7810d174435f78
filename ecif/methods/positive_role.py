"""Influence of the positive role alone: TracIn, IF-EKFAC and TRAK. Signs as everywhere: negative = harmful.

TracIn (Pruthi et al. 2020): Σ_c η_c ∇L_val(θ_c)·∇Pos_n(θ_c) over checkpoints. IF-EKFAC (Grosse et al. 2023):
∇L_val·H⁻¹∇Pos_n with EK-FAC's H at the end. Both take a pair's loss for a function of that pair.

TRAK (Park et al. 2023) takes margins, a random projection and the kernel of their gradients. The output functions of
a pair are its margins f = log p/(1 − p) in its row and in its column, so that ∇Pos_n = −Σ_sides (1 − p)·∇f. With
φ = Π∇f, and Φ (2N × K) all of them,

    score_n = Π∇L_val · (ΦᵀΦ + N(δ + λ)·I)⁻¹ · ( −Σ_sides (1 − p)·φ_n ).

Departures from TRAK: the gradient of L_val stands for the query; ridge as everywhere here, so that the sign and the
units are those of IS; one model instead of an ensemble (averaging several models' scores is the caller's).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.at_once import DIRECTIONS
from ecif.batches import Batch
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.projection import Projection
from ecif.linearise import push
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.roles import own_terms
from ecif.scoring import score_batch
from ecif.similarity import EXCLUDED


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
        total += rate * score_batch(objective, params, batch, gradient[None]).positive[0].double()
    return total


def ekfac_influence(objective: Objective, params: Params, batch: Batch, curvature: Ekfac, gradient: Tensor) -> Tensor:
    """(B,) for one batch; gradient is ∇L_val (P,). For many batches solve once and use `score_batch`."""
    return score_batch(objective, params, batch, curvature.solve(gradient[None]).x).positive[0]


@dataclass(frozen=True)
class TrakFeatures:
    """features (B, 2, K) float64: φ of row and column; weights (B, 2): 1 − p of each."""

    features: Tensor
    weights: Tensor


def trak_features(objective: Objective, params: Params, batch: Batch, projection: Projection) -> TrakFeatures:
    """One batch's, from a push along the rows of the projection."""
    features = []
    for directions in projection.row_chunks(DIRECTIONS.most):
        S, dS = push(objective, params, batch, directions)
        sides = [_margin(S, dS), _margin(S.mT, dS.mT)]
        features.append(torch.stack([slope for _, slope in sides], -1))  # (k, B, 2)
    weights = torch.stack([weight for weight, _ in sides], -1)
    return TrakFeatures(torch.cat(features).permute(1, 2, 0).double(), weights.double())


def trak_kernel(parts: Iterable[Tensor]) -> Tensor:
    """ΦᵀΦ (K, K), summed over batches' features."""
    total = None
    for features in parts:
        flat = features.flatten(0, 1)
        total = flat.mT @ flat + (0 if total is None else total)
    if total is None:
        raise ValueError("there are no features")
    return total


def trak_scores(part: TrakFeatures, kernel: Tensor, query: Tensor, ridge: float) -> Tensor:
    """(q, B) for queries Π∇L_val (q, K); ridge is `Objective.ridge`."""
    eye = torch.eye(kernel.shape[0], dtype=kernel.dtype, device=kernel.device)
    solved = torch.linalg.solve(kernel + ridge * eye, query.double().mT).mT
    return -torch.einsum("bsk,bs,qk->qb", part.features, part.weights, solved)


def _margin(S: Tensor, dS: Tensor) -> tuple[Tensor, Tensor]:
    """(1 − p[n,n] (B,), df (K, B)) with f = S[n,n] − logsumexp_{j≠n} S[n,j]; 0 where a pair has no negatives."""
    own = own_terms(S)
    rest = S.masked_fill(own, EXCLUDED)
    weight = torch.sigmoid(rest.logsumexp(-1) - S.diagonal())
    slope = dS.diagonal(dim1=-2, dim2=-1) - (rest.softmax(-1).masked_fill(own, 0.0) * dS).sum(-1)
    return weight, slope
