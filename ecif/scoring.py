"""Scores of all pairs of a batch at once, without any per-pair gradient (design sections 3 and 6).

A direction w is pushed forward to dS; closed forms in (S, dS) then give ``w·∇Pos_n`` and ``w·∇Neg_n``.
With ``w = H⁻¹∇L_val``, ``IS_n = w·∇Pos_n + w·∇Neg_n ≈ L_val(after removing n) − L_val(before)``:
negative = removing the pair lowers the validation loss = harmful; positive = valuable.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ecif.batch import Batch
from ecif.linearise import push
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.role_derivatives import negative_derivative, positive_derivative
from ecif.roles import Negative
from ecif.roles import positive as positive_role


@dataclass(frozen=True)
class BatchScores:
    """What one batch says about its B pairs along k directions.

    Attributes:
        positive: (k, B), w·∇Pos_n, in units of the loss for w = H⁻¹∇L_val.
        negative: (k, B), w·∇Neg_n.
        pair_loss: (B,), Pos_n: the pair's own loss in this batch.
        clip_score: (B,), the cosine of the pair's two embeddings, in [−1, 1].
    """

    positive: Tensor
    negative: Tensor
    pair_loss: Tensor
    clip_score: Tensor

    @property
    def total(self) -> Tensor:
        """(k, B): the task-related influence IS_n along each direction."""
        return self.positive + self.negative


def score_batch(
    objective: Objective, params: Params, batch: Batch, directions: Tensor, negative: Negative = "exact"
) -> BatchScores:
    """Both roles' scores of every pair of `batch` along directions (k, P) (flat, see `flatten`).

    Raises:
        ValueError: directions that are not (k, P), or an unknown form of the negative role.
    """
    if directions.ndim != 2:
        raise ValueError(f"directions must be (k, P), got shape {tuple(directions.shape)}")
    S, dS = push(objective, params, batch, directions)
    return BatchScores(
        positive=positive_derivative(S, dS),
        negative=negative_derivative(S, dS, negative),
        pair_loss=positive_role(S),
        clip_score=(S.diagonal() / objective.scale_of(params)).detach(),
    )
