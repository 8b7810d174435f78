"""Whole batches of one partition as a shard: how passes over the training pairs are cut, and read again."""

from collections.abc import Iterator

from torch import Tensor

from ecif import Batch
from store.shards import Planned
from store.specification import JobSpec
from worker.problem import Problem
from worker.task import Json

_PAIRS_A_SHARD = 16_384


def batch_ranges(plan: Json, spec: JobSpec) -> list[Planned]:
    """About as many pairs in each shard, whatever the number of workers: the sums are grouped alike every time."""
    batches, pairs, size = plan["batches"], plan["pairs"], spec.objective.batch_size
    step = max(1, _PAIRS_A_SHARD // size)
    planned = []
    for partition in range(spec.objective.partitions):
        for first in range(0, batches, step):
            last = min(first + step, batches)
            planned.append(
                Planned({"partition": partition, "first": first, "last": last}, min(last * size, pairs) - first * size)
            )
    return planned


def places_of(problem: Problem) -> list[Tensor]:
    """The batches of this shard, as places in the roster."""
    payload = problem.task.claim.payload
    return problem.roster.batches(payload["partition"])[payload["first"] : payload["last"]]


def pairs_of(problem: Problem) -> int:
    """How many pairs stand in the batches of this shard."""
    return sum(len(places) for places in places_of(problem))


def batches_of(problem: Problem) -> Iterator[tuple[int, Batch]]:
    """The batches of this shard, each with its index in a whole pass; progress is told on the way."""
    payload, done = problem.task.claim.payload, 0
    before = payload["partition"] * len(problem.roster.batches(payload["partition"])) + payload["first"]
    for index, places in enumerate(places_of(problem), before):
        problem.task.lease.progress(done)
        yield index, problem.batch(places)
        done += len(places)
