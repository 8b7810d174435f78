"""Whole batches of one partition as a shard: how passes over the training pairs are cut, and read again."""

from collections.abc import Iterator

from torch import Tensor

from ecif import Batch
from store.shards import Planned
from worker.outputs import BatchRange, PlanOutput
from worker.pipeline import Planning
from worker.problem import Problem

_PAIRS_A_SHARD = 16_384


def batch_ranges(planning: Planning) -> list[Planned]:
    """About as many pairs in each shard, whatever the number of workers: the sums are grouped alike every time."""
    plan, size = planning.output(PlanOutput), planning.spec.objective.batch_size
    step = max(1, _PAIRS_A_SHARD // size)
    planned = []
    for partition in range(planning.spec.objective.partitions):
        for first in range(0, plan.batches, step):
            last = min(first + step, plan.batches)
            payload = BatchRange(partition, first, last).as_json()
            planned.append(Planned(payload, min(last * size, plan.pairs) - first * size))
    return planned


def places_of(problem: Problem) -> list[Tensor]:
    """The batches of this shard, as places in the roster."""
    mine = BatchRange.from_json(problem.task.claim.payload)
    return problem.roster.batches(mine.partition)[mine.first : mine.last]


def pairs_of(problem: Problem) -> int:
    """How many pairs stand in the batches of this shard."""
    return sum(len(places) for places in places_of(problem))


def batches_of(problem: Problem) -> Iterator[tuple[int, Batch]]:
    """The batches of this shard, each with its index in a whole pass; progress is told on the way."""
    mine, done = BatchRange.from_json(problem.task.claim.payload), 0
    before = mine.partition * len(problem.roster.batches(mine.partition)) + mine.first
    for index, places in enumerate(places_of(problem), before):
        problem.task.lease.progress(done)
        yield index, problem.batch(places)
        done += len(places)
