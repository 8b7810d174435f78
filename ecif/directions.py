"""Everything that one pass over the batches tells of every pair (`docs/design.md`, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature
from ecif.curvature.kronecker import Terms
from ecif.heads import AtParams
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.per_pair import WithoutEach, without_each, without_each_exactly
from ecif.roles import Negative
from ecif.scoring import BatchScores, score_batch
from ecif.self_influence import exact_self_influence, probed_self_influence


@dataclass(frozen=True)
class Directions:
    """What all pairs are scored along; every part may be missing.

    Attributes:
        validation: (0 or 1, P), w = H⁻¹∇L_val.
        probes: (k, P), solved probes, for an estimate of self-influence.
        curvature: for exact self-influence instead, where the model is small.
        terms: for that of two heads by their Kronecker factors instead.
        leave_one_out: whether that loss is wanted; with `curvature` or `terms` only.
    """

    validation: Tensor
    probes: Tensor
    curvature: Curvature | None = None
    terms: dict[str, Terms] | None = None
    leave_one_out: bool = False

    def score(self, objective: Objective, params: Params, batch: Batch, mode: Negative = "exact") -> dict[str, Tensor]:
        """`pair_loss`, `positive_influence`, `negative_influence`, `self_influence`, `leave_one_out`: (B,) each, as far
        as known.

        All are to be averaged over the partitions. With several of them `self_influence` is left out: what is squared
        in it is averaged before (`averaged_self_influence`, `over_partitions`), and `along_probes` (B, k) is what is
        squared of probes. Of several there are neither `terms` nor a leave-one-out loss.
        """
        first, along = len(self.validation), torch.cat([self.validation, self.probes])
        without: WithoutEach | None = None
        if self.terms is not None:
            at = AtParams.of(objective, params, batch)
            scores = BatchScores.of(at.S[0], at.push(along)[:, 0], at.scale, mode)
            both = without_each(at, self.terms, mode)
            without = WithoutEach(both.self_influence[0], both.leave_one_out[0])
        else:
            scores = score_batch(objective, params, batch, along, mode)
        if self.curvature is not None and self.leave_one_out:
            without = without_each_exactly(objective, params, batch, self.curvature, mode)
        columns = {"pair_loss": scores.pair_loss}
        if first:
            columns |= {"positive_influence": scores.positive[0], "negative_influence": scores.negative[0]}
        if objective.partitions > 1:
            return columns | ({"along_probes": scores.total[first:].mT} if len(self.probes) else {})
        if without is not None:
            columns["self_influence"] = without.self_influence
            if self.leave_one_out:
                columns["leave_one_out"] = without.leave_one_out
        elif len(self.probes):
            probed = BatchScores(scores.positive[first:], scores.negative[first:], scores.pair_loss, scores.clip_score)
            columns["self_influence"] = probed_self_influence(probed).value
        elif self.curvature is not None:
            columns["self_influence"] = exact_self_influence(objective, params, batch, self.curvature, mode).value
        return columns
