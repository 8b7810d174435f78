"""The rounds of a phase (decision 43, `docs/decisions/`): a step that asks for a sum, shards that sum leaves, shards
that add partial sums where those are many, and the step that goes on with the sum."""

import math
from collections.abc import Callable
from dataclasses import replace

from ecif import unflatten
from ecif.sums import LEAF, total
from store.shards import Planned
from worker.analysis.notebook import StepNotebook, WantedError, sum_of, term_of
from worker.analysis.problem import Problem, open_problem
from worker.analysis.tensors import put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import GoOn, LeafRange, Output, Parts, PendingSum, RoundOutput, RoundPayload
from worker.pipeline import Planning

MOST_SHARDS = 128
"""Of a round."""

_READ_AT_MOST = 1 << 29
"""Bytes of partial sums that one shard should read."""

_LEAST_TOGETHER = 16
"""Partial sums that are added by one shard, however large they are."""


def run_round(task: Task, step: Callable[[Problem], Done[Output]]) -> Done[Output]:
    """Do a shard of a phase whose steps are `step`: it is run from its start each time, and finds in the notebook of
    its problem what it knew before."""
    payload = RoundPayload.from_json(task.claim.payload)
    if payload.sum is not None:
        return _sum(task, payload.sum)
    if payload.add is not None:
        added = put_tensors(task.blobs, task.passing_name("part.safetensors"), sum_of(task, payload.add.parts))
        return Done(RoundOutput(part=added, requested_in=payload.add.requested_in, read=payload.add.parts))
    notebook = StepNotebook(task)
    notebook.forget_what_was_read()
    with open_problem(task) as problem:
        try:
            done = step(replace(problem, notebook=notebook))
        except WantedError as wanted:
            return Done(RoundOutput(pending=notebook.ask(wanted.question)), units=1)
    return replace(done, units=1) if task.claim.round else done


def next_round(planning: Planning) -> list[Planned]:
    """The shards of the round after one that has ended; none where it has ended the phase."""
    left = [RoundOutput.from_json(output) for output in planning.left_by_round(planning.round)]
    pending = left[0].pending
    if pending is not None:
        return _summing(pending, planning.round)
    parts = [output.part for output in left if output.part is not None]
    if not parts:
        return []
    requested_in = left[0].requested_in
    (asking,) = planning.left_by_round(requested_in)
    pending = RoundOutput.from_json(asking).pending
    assert pending is not None  # noqa: S101  that round was a step that waits
    together = max(_LEAST_TOGETHER, _power_of_two_below(_READ_AT_MOST / max(1, pending.bytes)))
    if len(parts) > together:
        runs = [parts[start : start + together] for start in range(0, len(parts), together)]
        return [Planned(RoundPayload(add=Parts(run, requested_in)).as_json()) for run in runs]
    read = [blob for output in left for blob in output.read]
    return [Planned(RoundPayload(go_on=GoOn(pending, parts, read)).as_json(), 1)]


def _summing(pending: PendingSum, requested_in: int) -> list[Planned]:
    """Aligned runs of leaves, as many in each as a power of two."""
    run = 1
    while math.ceil(pending.leaves / run) > MOST_SHARDS:
        run *= 2
    ranges = [(first, min(first + run, pending.leaves)) for first in range(0, pending.leaves, run)]
    return [Planned(RoundPayload(sum=LeafRange(pending.sum, requested_in, *ends)).as_json()) for ends in ranges]


def _power_of_two_below(number: float) -> int:
    return 1 << max(0, math.floor(math.log2(max(1.0, number))))


def _sum(task: Task, mine: LeafRange) -> Done[Output]:
    """The sum of some leaves."""
    with open_problem(task) as problem:
        term, weights = term_of(task, mine.sum, problem.device)
        params = problem.params if weights is None else unflatten(weights, problem.params)
        first, last = mine.first * LEAF, mine.last * LEAF
        batches = problem.pass_over(mine.sum.over).between(first, last)
        sums = total(term, problem.objective, params, batches, first)
        part = put_tensors(task.blobs, task.passing_name("part.safetensors"), sums)
    return Done(RoundOutput(part=part, requested_in=mine.requested_in))
