"""`summary.stability`: how firm the columns are that depend on chance.

What depends on who met whom in a batch is compared between two partitions. A job that has one alone scores some pairs
in batches of another: the fit and the directions stay, so it is a bounded part of the scoring pass and nothing else."""

from typing import Literal

import torch
from torch import Tensor

from ecif.batches import cut_batches, plan_batches
from ecif.stability import Stability, stability
from store import summaries
from store.blobs import Blobs
from worker.analysis.job_view import JobView
from worker.analysis.problem import Problem
from worker.analysis.roster import Roster
from worker.analysis.tensors import get_tensors
from worker.outputs import ScoreOutput

AGAIN = 1024
"""Pairs that are scored in other batches, at most, or one batch if it is larger."""

_HARMFUL_FIRST = ("influence", "positive_influence", "negative_influence", "neighbour_influence")
_OF_BATCHES = (*_HARMFUL_FIRST, "self_influence", "leave_one_out", "pair_loss")
"""The columns that depend on who met whom in a batch."""


def drawn_again(problem: Problem) -> list[Tensor]:
    """The batches of a partition that the job does not have, as places in the roster, which this shard scores beside
    its own; none for most."""
    roster = problem.roster
    if len(roster.partitions) > 1 or problem.task.claim.index:
        return []
    other = plan_batches(roster.n_pairs, roster.batch_size, 2, problem.view.spec.objective.seed)[1]
    batches = cut_batches(other, roster.batch_size)
    return batches[: max(1, AGAIN // len(batches[0]))] if len(batches) > 1 else []


def of_columns(
    blobs: Blobs, view: JobView, roster: Roster, columns: dict[str, Tensor]
) -> dict[str, summaries.Stability | float | None]:
    """How firm those of `columns`, of the scored pairs, are that depend on batches; null if it is not known."""
    names = [name for name in _OF_BATCHES if name in columns]
    repeats = _in_two_partitions(blobs, view, roster, columns) if names else {}
    report: dict[str, summaries.Stability | float | None] = {}
    for name in names:
        measured = None
        if name in repeats:
            sign = -1 if name in _HARMFUL_FIRST else 1
            measured = stability(sign * repeats[name], averaged=len(roster.partitions))
        report[name] = as_summary(measured, "partitions")
    return report


def _in_two_partitions(blobs: Blobs, view: JobView, roster: Roster, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the same scored pairs score in both, (2, m) by column."""
    outputs, partitions = view.outputs(ScoreOutput), len(roster.partitions)
    if partitions > 1:
        shards = len(outputs) // partitions
        here, there = (_of_shards(blobs, outputs[part * shards :][:shards], roster) for part in (0, 1))
    else:
        again = next((output.again for output in outputs if output.again is not None), None)
        if again is None:
            return {}
        drawn = get_tensors(blobs, again)
        places = drawn.pop("places")
        scored = places < roster.scored
        here = {name: values[places[scored]] for name, values in columns.items()}
        there = _with_influence({name: values[scored] for name, values in drawn.items()})
    return {name: torch.stack([here[name], there[name]]) for name in here.keys() & there.keys()}


def _of_shards(blobs: Blobs, outputs: list[ScoreOutput], roster: Roster) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    for output in outputs:
        content = get_tensors(blobs, output.scores)
        places = content.pop("places")
        for name in content.keys() & set(_OF_BATCHES):
            columns.setdefault(name, torch.zeros(roster.n_pairs, dtype=torch.float64))[places] = content[name]
    columns.pop("self_influence", None)  # of the average over all partitions, and kept with the first
    return _with_influence({name: values[: roster.scored] for name, values in columns.items()})


def _with_influence(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    if "positive_influence" not in columns:
        return columns
    return columns | {"influence": columns["positive_influence"] + columns["negative_influence"]}


def as_summary(measured: Stability | None, over: Literal["exchanges", "partitions"]) -> summaries.Stability | None:
    """As it stands in the summary. over: what was drawn again."""
    if measured is None:
        return None
    return {
        "over": over,
        "repeats": measured.repeats,
        "pairs": measured.pairs,
        "rank_correlation": measured.rank_correlation,
        "top_overlap": {f"{share:g}": overlap for share, overlap in measured.top_overlap.items()},
        "standard_error": measured.standard_error,
    }
