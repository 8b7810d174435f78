"""Everything that one pass over the batches tells of every pair (`docs/design.md`, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature
from ecif.curvature.kronecker import Terms
from ecif.heads import AtParams, stacked, tangents
from ecif.objective import Objective
from ecif.parameters import Params
from ecif.per_pair import WithoutEach, without_each, without_each_exactly
from ecif.roles import Negative
from ecif.scoring import BatchScores, score_batches
from ecif.self_influence import averaged_self_influence, exact_self_influence

_AS_DIRECTIONS = 32
"""So many directions need as much memory as what is had of every pair by Kronecker factors."""


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

    def score(
        self, objective: Objective, params: Params, batches: Iterable[Batch], mode: Negative = "exact"
    ) -> Iterator[dict[str, Tensor]]:
        """Of one batch after another `pair_loss`, `positive_influence`, `negative_influence`, `self_influence`,
        `leave_one_out`: (B,) each, as far as known; `along_groups`: (B, C).

        All are to be averaged over the partitions. With several of them `self_influence` is left out: what is squared
        in it is averaged before (`averaged_self_influence`, `over_partitions`), and `along_probes` and
        `along_partners` (B, k) are what is multiplied of probes. Of several there are neither `terms` nor a
        leave-one-out loss.
        """
        none = self.validation[:0]
        partners, groups = (none if rows is None else rows for rows in (self.partners, self.groups))
        parts = [self.validation, self.probes, partners, groups]
        directions, counts = torch.cat(parts), [len(rows) for rows in parts]
        if self.terms is not None:
            along = tangents(directions, params)
            for stack in stacked(batches, max(len(directions), _AS_DIRECTIONS)):
                at = AtParams.of(objective, params, stack)
                both = without_each(at, self.terms, objective.loss, mode)
                each = BatchScores.of(objective, params, at.S, at.push(along), mode).apart()
                for scores, value, loss in zip(each, both.self_influence, both.leave_one_out, strict=True):
                    yield _columns(scores, counts) | self._of_each(WithoutEach(value, loss))
            return
        ours, theirs = tee(batches)
        for batch, scores in zip(ours, score_batches(objective, params, theirs, directions, mode), strict=True):
            columns = _columns(scores, counts)
            along = {name: columns.pop(name) for name in ("along_probes", "along_partners") if name in columns}
            if objective.partitions > 1:
                yield columns | along
            elif along:
                yield columns | {"self_influence": averaged_self_influence(**along)}
            else:
                yield columns | self._exactly(objective, params, batch, mode)

    def _exactly(self, objective: Objective, params: Params, batch: Batch, mode: Negative) -> dict[str, Tensor]:
        """What needs a solve for every pair, where there is a curvature for that."""
        if self.curvature is None:
            return {}
        if self.leave_one_out:
            return self._of_each(without_each_exactly(objective, params, batch, self.curvature, mode))
        return {"self_influence": exact_self_influence(objective, params, batch, self.curvature, mode).value}

    def _of_each(self, without: WithoutEach) -> dict[str, Tensor]:
        columns = {"self_influence": without.self_influence}
        return columns | ({"leave_one_out": without.leave_one_out} if self.leave_one_out else {})


def _columns(scores: BatchScores, counts: list[int]) -> dict[str, Tensor]:
    """What is along directions: so many of the validation set, of probes, of partners and of groups."""
    columns = {"pair_loss": scores.pair_loss}
    names = ("along_probes", "along_partners", "along_groups")
    validation, *others = torch.split(scores.total.mT, counts, dim=1)
    columns |= {name: values for name, values in zip(names, others, strict=True) if values.shape[1]}
    if validation.shape[1]:
        columns |= {"positive_influence": scores.positive[0], "negative_influence": scores.negative[0]}
    return columns
