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
from ecif.self_influence import averaged_self_influence, exact_self_influence


@dataclass(frozen=True)
class Directions:
    """What all pairs are scored along; every part may be missing.

    Attributes:
        validation: (0 or 1, P), w = H⁻¹∇L_val.
        probes: (k, P), solved probes, for an estimate of self-influence.
        curvature: for exact self-influence instead, where the model is small.
        partners: (k, P), of the probes, where they have any.
        terms: for self-influence of two heads by their Kronecker factors instead.
        leave_one_out: whether that loss is wanted; with `curvature` or `terms` only.
        groups: (C, P), of groups of validation pairs (`neighbours`).
    """

    validation: Tensor
    probes: Tensor
    curvature: Curvature | None = None
    partners: Tensor | None = None
    terms: dict[str, Terms] | None = None
    leave_one_out: bool = False
    groups: Tensor | None = None

    def score(self, objective: Objective, params: Params, batch: Batch, mode: Negative = "exact") -> dict[str, Tensor]:
        """`pair_loss`, `positive_influence`, `negative_influence`, `self_influence`, `leave_one_out`: (B,) each, as far
        as known; `along_groups`: (B, C).

        All are to be averaged over the partitions. With several of them `self_influence` is left out: what is squared
        in it is averaged before (`averaged_self_influence`, `over_partitions`), and `along_probes` and
        `along_partners` (B, k) are what is multiplied of probes. Of several there are neither `terms` nor a
        leave-one-out loss.
        """
        none = self.validation[:0]
        partners, groups = (none if rows is None else rows for rows in (self.partners, self.groups))
        parts = [self.validation, self.probes, partners, groups]
        directions = torch.cat(parts)
        without: WithoutEach | None = None
        if self.terms is not None:
            at = AtParams.of(objective, params, batch)
            scores = BatchScores.of(objective, params, at.S[0], at.push(directions)[:, 0], mode)
            both = without_each(at, self.terms, objective.loss, mode)
            without = WithoutEach(both.self_influence[0], both.leave_one_out[0])
        else:
            scores = score_batch(objective, params, batch, directions, mode)
        if self.curvature is not None and self.leave_one_out:
            without = without_each_exactly(objective, params, batch, self.curvature, mode)
        columns = {"pair_loss": scores.pair_loss}
        _, probed, partnered, grouped = torch.split(scores.total.mT, [len(rows) for rows in parts], dim=1)
        if grouped.shape[1]:
            columns["along_groups"] = grouped
        if len(self.validation):
            columns |= {"positive_influence": scores.positive[0], "negative_influence": scores.negative[0]}
        along = {"along_probes": probed, "along_partners": partnered}
        along = {name: values for name, values in along.items() if values.shape[1]}
        if objective.partitions > 1:
            return columns | along
        if without is not None:
            columns["self_influence"] = without.self_influence
            if self.leave_one_out:
                columns["leave_one_out"] = without.leave_one_out
        elif along:
            columns["self_influence"] = averaged_self_influence(**along)
        elif self.curvature is not None:
            columns["self_influence"] = exact_self_influence(objective, params, batch, self.curvature, mode).value
        return columns
