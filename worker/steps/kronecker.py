"""The three phases that make EK-FAC from sums over shards: factors, the bases they have, eigenvalues along those.

The bases are found once, in a shard of their own: two machines need not agree on the basis of an equal eigenvalue.
"""

from collections.abc import Callable, Iterator

from ecif.curvature import ekfac
from store.phases import Phase
from store.shards import Planned
from worker import curvatures
from worker.batch_ranges import batch_ranges, batches_of, pairs_of
from worker.outputs import BasesOutput, EigenvaluesOutput, FactorsOutput, Output
from worker.pipeline import Planning
from worker.problem import open_problem
from worker.task import Done, Task
from worker.tensors import get_tensors, put_tensors


def cut(planning: Planning) -> list[Planned]:
    """Whole batches each, of a pass over the data, or for the bases one shard; none where nothing asks for EK-FAC."""
    if not curvatures.needs_ekfac(planning.spec):
        return []
    return [Planned({}, 1)] if planning.phase is Phase.BASES else batch_ranges(planning)


def run(task: Task) -> Done[Output]:
    """Do a shard of any of the three."""
    return _RUN[task.claim.phase](task)


def factors(task: Task) -> Done[FactorsOutput]:
    """Sum the factors over the batches of a shard."""
    with open_problem(task) as problem:
        seed = problem.view.spec.objective.seed
        sums = ekfac.merge(
            ekfac.factors(problem.objective, problem.params, batch, index, ekfac.DRAWS, seed)
            for index, batch in batches_of(problem)
        )
        blob = put_tensors(task.blobs, task.blob_name("sums.safetensors"), sums)
        return Done(FactorsOutput(blob), pairs_of(problem))


def bases(task: Task) -> Done[BasesOutput]:
    """Merge all factors and find their eigenvectors."""
    with open_problem(task) as problem:

        def parts() -> Iterator[ekfac.Sums]:
            for output in problem.view.outputs(FactorsOutput):
                task.lease.check()
                part = get_tensors(task.blobs, output.sums)
                yield {name: tensor.to(problem.device) for name, tensor in part.items()}

        eigenvectors = ekfac.bases(ekfac.merge(parts()))
        tensors = {f"left.{name}": Q for name, Q in eigenvectors.left.items()}
        tensors |= {f"right.{name}": Q for name, Q in eigenvectors.right.items()}
        return Done(BasesOutput(put_tensors(task.blobs, task.blob_name("bases.safetensors"), tensors)), 1)


def eigenvalues(task: Task) -> Done[EigenvaluesOutput]:
    """Sum the curvature along the bases over the batches of a shard, with other labels than the factors had."""
    with open_problem(task) as problem:
        seed, along = problem.view.spec.objective.seed + 1, curvatures.bases(problem)
        sums = ekfac.merge(
            ekfac.curvatures(problem.objective, problem.params, batch, index, along, ekfac.DRAWS, seed)
            for index, batch in batches_of(problem)
        )
        blob = put_tensors(task.blobs, task.blob_name("sums.safetensors"), sums)
        return Done(EigenvaluesOutput(blob), pairs_of(problem))


_RUN: dict[Phase, Callable[[Task], Done[Output]]] = {
    Phase.FACTORS: factors,
    Phase.BASES: bases,
    Phase.EIGENVALUES: eigenvalues,
}
