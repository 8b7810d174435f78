"""TracIn and IF-EKFAC: influence of the positive role alone. Signs as everywhere: negative = harmful.

TracIn (Pruthi et al. 2020): Σ_c η_c ∇L_val(θ_c)·∇Pos_n(θ_c) over checkpoints. IF-EKFAC (Grosse et al. 2023):
∇L_val·H⁻¹∇Pos_n with EK-FAC's H at the end. Both take a pair's loss for a function of that pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ecif.batch import Batch
from ecif.curvature.ekfac import Ekfac
from ecif.objective import Objective
from ecif.parameters import Params
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
        total += rate * score_batch(objective, params, batch, gradient[None]).positive[0].double()
    return total


def ekfac_influence(objective: Objective, params: Params, batch: Batch, curvature: Ekfac, gradient: Tensor) -> Tensor:
    """(B,) for one batch; gradient is ∇L_val (P,). For many batches solve once and use `score_batch`."""
    return score_batch(objective, params, batch, curvature.solve(gradient[None]).x).positive[0]
