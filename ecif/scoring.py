"""Scores of all pairs of a batch at once, without any per-pair gradient (`docs/design.md`, sections 3, 5 and 9).

A direction w is pushed forward to dS; closed forms in (S, dS) then give ``w·∇Pos_n`` and ``w·∇Neg_n``.
With ``w = H⁻¹∇L_val``, ``IS_n = w·∇Pos_n + w·∇Neg_n ≈ L_val(after removing n) − L_val(before)``:
negative = removing the pair lowers the validation loss = harmful; positive = valuable.

The terms of pairs that share a batch and leave together do not add, so a removed set R has its own form,
`Loss.removal`, whose gradient and predicted effect are taken batch by batch:

    θ̂_{−R} ≈ θ̂ + H⁻¹ ∇( Σ_{n∈R} Pos_n + Neg_R ),      L_val(after) − L_val(before) ≈ w·∇(…),  w = H⁻¹∇L_val.

Sums over the batches of all R partitions are to be divided by the number of partitions, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from ecif import heads
from ecif.batches import Batch
from ecif.linearise import forward_mode, pull, push
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.roles import Negative


@dataclass(frozen=True)
class BatchScores:
    """What one batch says about its B pairs along k directions; of a stack of batches (k, G, B) and (G, B).

    Attributes:
        positive: (k, B), w·∇Pos_n, in units of the loss for w = H⁻¹∇L_val.
        negative: (k, B), w·∇Neg_n.
        pair: (k, B), the same of `pair_loss`, of methods that take it for a function of its pair.
        pair_loss: (B,), the pair's own loss in this batch.
        clip_score: (B,), the cosine of the pair's two embeddings, in [−1, 1].
    """

    positive: Tensor
    negative: Tensor
    pair: Tensor
    pair_loss: Tensor
    clip_score: Tensor

    @classmethod
    def of(cls, objective: Objective, params: Params, S: Tensor, dS: Tensor, negative: Negative) -> BatchScores:
        """From S (..., B, B) and its changes dS (k, ..., B, B)."""
        loss, cosine = objective.loss, S.diagonal(dim1=-2, dim2=-1)
        positive_role, negative_role = loss.positive_derivative(S, dS), loss.negative_derivative(S, dS, negative)
        if loss.biased:
            cosine = cosine - objective.bias_of(params)
        return cls(
            positive=positive_role,
            negative=negative_role,
            pair=positive_role + loss.shared * negative_role if loss.shared else positive_role,
            pair_loss=loss.pair_loss(S),
            clip_score=(cosine / objective.scale_of(params)).detach(),
        )

    def apart(self) -> Iterator[BatchScores]:
        """Of a stack, those of each of its batches."""
        for place in range(len(self.pair_loss)):
            positive, negative, pair = (part[:, place] for part in (self.positive, self.negative, self.pair))
            yield BatchScores(positive, negative, pair, self.pair_loss[place], self.clip_score[place])

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
    _check(directions)
    return BatchScores.of(objective, params, *push(objective, params, batch, directions), negative)


def score_batches(
    objective: Objective, params: Params, batches: Iterable[Batch], directions: Tensor, negative: Negative = "exact"
) -> Iterator[BatchScores]:
    """`score_batch` of one batch after another; those of two linear heads share their matrix products.

    Raises:
        ValueError: as `score_batch` does.
    """
    _check(directions)
    if not objective.closed_form(params):
        for batch in batches:
            yield score_batch(objective, params, batch, directions, negative)
        return
    along = heads.tangents(directions, params)
    for stack in heads.stacked(batches, len(directions)):
        at = heads.AtParams.of(objective, params, stack)
        yield from BatchScores.of(objective, params, at.S, at.push(along), negative).apart()


def _check(directions: Tensor) -> None:
    if directions.ndim != 2:
        raise ValueError(f"directions must be (k, P), got shape {tuple(directions.shape)}")


def removal_gradient(objective: Objective, params: Params, batch: Batch, removed: Tensor) -> Tensor:
    """∇( L(batch) − L(batch without the removed) ), (P,), for removed (B,) bool."""
    S, back = pull(objective, params, batch)
    with torch.no_grad():
        cotangent: Tensor = grad(partial(objective.loss.removal, removed=removed))(S)
    return back(cotangent[None])[0]


def score_removals(objective: Objective, params: Params, batch: Batch, directions: Tensor, removed: Tensor) -> Tensor:
    """w·∇( L(batch) − L(batch without each set) ), (k, m), for directions (k, P) and m sets (m, B) bool."""
    S, dS = push(objective, params, batch, directions)

    def along(direction: Tensor, mask: Tensor) -> Tensor:
        moved: Tensor = jvp(partial(objective.loss.removal, removed=mask), (S,), (direction,))[1]
        return moved

    with forward_mode(), torch.no_grad():
        scores: Tensor = vmap(vmap(along, (None, 0)), (0, None))(dS, removed)
    return scores
