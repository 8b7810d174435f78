"""Embeddings in, ranking out: a `misalignment` job in one call, without a service (`docs/design.md`, section 7).

The steps are those of a job, by the same functions: two square heads are fitted, the curvature is inverted, all pairs
are scored, the suspicion is learned from mismatches among them, and they are ranked and flagged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ecif.batches import Batch, cut_batches, plan_batches, validation_order
from ecif.curvature.choice import EFFORT, PROBES, draw_probes, from_products, kronecker_terms, per_pair
from ecif.curvature.damping import DampingChoice, choose_damping
from ecif.detection.flags import Flags, flag_against_clean, flag_by_estimate
from ecif.detection.learned import Learned, learn_suspicion
from ecif.detection.suspicion import rank_by_suspicion
from ecif.directions import Directions
from ecif.fit.fitting import fit
from ecif.fit.settings import FitResult, FitSettings
from ecif.losses import SIGMOID, SOFTMAX
from ecif.objective import Objective
from ecif.over_partitions import self_influence_of
from ecif.parameters import Params, flatten, size
from ecif.self_influence import averaged_self_influence
from ecif.similarity import normalise

_CURVATURE: Literal["gauss_newton"] = "gauss_newton"


@dataclass(frozen=True)
class EmbeddingRanking:
    """What was computed of n pairs; all tensors are on the CPU, float64 unless said otherwise.

    Attributes:
        suspicion: (n,) log-odds up to a constant, higher = more likely wrong.
        order: (n,) int64, the most suspicious first.
        flags: which pairs to drop, and with what promise.
        scores: (n,) each: `clip_score` before the fit, `pair_loss` and `self_influence` after it; with a clean set also
            `influence` = `positive_influence` + `negative_influence`, the change of the mean validation loss when the
            pair is removed: negative = harmful.
        fit, damping: where the fit ended, and the λ that was chosen.
        learned: which columns the suspicion is made of, and why each pair has it; of the clean pairs too, at the end.
    """

    suspicion: Tensor
    order: Tensor
    flags: Flags
    scores: dict[str, Tensor]
    fit: FitResult
    damping: DampingChoice
    learned: Learned


def rank_embeddings(
    images: Tensor,
    texts: Tensor,
    *,
    clean: tuple[Tensor, Tensor] | None = None,
    captions: Sequence[str] | None = None,
    false_discovery_rate: float = 0.05,
    confidence: float = 0.9,
    temperature: float = 0.01,
    logit_bias: float | None = None,
    l2: float = 0.3,
    batch_size: int = 128,
    partitions: int = 1,
    epochs: int = 200,
    seed: int = 0,
) -> EmbeddingRanking:
    """Rank n image-text pairs by how likely they are wrong, and flag those to drop.

    Args:
        images, texts: (n, E) alike, row n of both being pair n; lengths do not matter. Equal rows stand for equal
            images or captions, which are no negatives of each other.
        clean: images and texts (m, E) of pairs that are trusted to be right. They calibrate the flags, and define the
            validation loss that `influence` is of. Without it flags are an estimate, and there is no influence.
        captions: N texts, those of the clean pairs at the end: mismatches that differ by a word are then made too.
        false_discovery_rate: the share of right pairs among the flagged, at most.
        confidence: how surely the rate holds in this run, where there are clean pairs.
        temperature: τ of the model that made the embeddings.
        logit_bias: b of that model if it was trained with the sigmoid loss; None: with the softmax loss.
        l2: δ per pair, the pull of the heads to the identity.

    Raises:
        ValueError: shapes that do not agree, or a setting out of its range.
    """
    if images.ndim != 2 or images.shape != texts.shape or (clean and clean[0].shape != clean[1].shape):
        raise ValueError("images and texts must be (n, E) alike")
    x, y = images, texts
    if clean:
        x, y = torch.cat([x, clean[0]]), torch.cat([y, clean[1]])
    n, N = len(images), len(x)
    pairs = _Pairs.of(x, y)
    cuts = [cut for row in plan_batches(N, batch_size, partitions, seed) for cut in cut_batches(row, batch_size)]

    def placed() -> Iterator[tuple[Tensor, Batch]]:
        return ((cut, pairs.take(cut)) for cut in cuts)

    def batches() -> Iterator[Batch]:
        return (batch for _, batch in placed())

    eye = torch.eye(x.shape[1], dtype=pairs.images.dtype, device=x.device)
    initial = {"image.weight": eye, "text.weight": eye.clone()}
    loss = SOFTMAX if logit_bias is None else SIGMOID
    objective = Objective(
        square_heads, 1 / temperature, l2, initial, N, partitions, linear=True, loss=loss, bias=logit_bias or 0.0
    )
    fitted = fit(objective, initial, batches, FitSettings(epochs))
    params = fitted.params
    damping = choose_damping(
        "auto", objective, params, batches, largest_condition=EFFORT["heads"].largest_condition, seed=seed
    )
    method = per_pair(_CURVATURE, objective, params, "heads")
    curvature = from_products(
        _CURVATURE, objective, params, batches, damping=damping.value, scope="heads", method=method, seed=seed
    )
    rhs = flatten(params).new_zeros(0, size(params), dtype=torch.float64)
    if clean:
        held = _Pairs.of(*clean)
        validation = (held.take(cut) for cut in cut_batches(validation_order(len(clean[0]), seed), batch_size))
        rhs = objective.validation_gradient(params, validation, len(clean[0]))[None]
    if PROBES[method]:
        probes = draw_probes(curvature, objective, params, batches, method=method, damping=damping.value, seed=seed)
        rhs = torch.cat([rhs, probes.rows])
    solved = curvature.solve(rhs).x.to(eye)
    first = 1 if clean else 0
    directions = Directions(
        solved[:first],
        solved[first:],
        curvature if method == "exact" else None,
        terms=kronecker_terms(curvature) if method == "kronecker" else None,
    )

    scores: dict[str, Tensor] = {}
    for places, columns in zip(cuts, directions.score(objective, params, batches()), strict=True):
        for name, values in columns.items():
            empty = torch.zeros(N, *values.shape[1:], dtype=torch.float64)
            scores.setdefault(name, empty)[places] += values.double().cpu() / partitions
    if "along_probes" in scores:
        scores["self_influence"] = averaged_self_influence(scores.pop("along_probes"))
    elif "self_influence" not in scores:
        scores["self_influence"] = self_influence_of(objective, params, placed, torch.arange(N), curvature).cpu()
    scores["clip_score"] = (normalise(x) * normalise(y)).sum(1).double().cpu()
    if clean:
        scores["influence"] = scores["positive_influence"] + scores["negative_influence"]
    learned = learn_suspicion(x, y, captions, pairs.texts_equal, pairs.images_equal, scale=1 / temperature, seed=seed)
    doubt, injected = learned.suspicion, learned.injected_scores
    flags = (
        flag_against_clean(doubt[:n], doubt[n:], false_discovery_rate, confidence=confidence, injected=injected)
        if n < N
        else flag_by_estimate(doubt, false_discovery_rate, injected=injected)
    )
    return EmbeddingRanking(
        doubt[:n],
        rank_by_suspicion(doubt).order(n),
        flags,
        {name: values[:n] for name, values in scores.items()},
        fitted,
        damping,
        learned,
    )


def square_heads(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Texts and images (B, E) through `text.weight` and `image.weight` (E, E)."""
    return texts @ params["text.weight"].mT, images @ params["image.weight"].mT


@dataclass(frozen=True)
class _Pairs:
    """images, texts (N, E); images_equal, texts_equal (N,) int64 that number their distinct rows."""

    images: Tensor
    texts: Tensor
    images_equal: Tensor
    texts_equal: Tensor

    @classmethod
    def of(cls, images: Tensor, texts: Tensor) -> _Pairs:
        wide = torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)
        x, y = images.to(wide), texts.to(wide)
        return cls(x, y, *(torch.unique(rows, dim=0, return_inverse=True)[1] for rows in (x, y)))

    def take(self, places: Tensor) -> Batch:
        on = places.to(self.images.device)
        return Batch(self.images[on], self.texts[on], self.texts_equal[on], self.images_equal[on])
