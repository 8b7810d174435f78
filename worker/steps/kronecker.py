"""The three phases that make EK-FAC from sums over shards: factors, the bases they have, eigenvalues along those.

The bases are found once, in a shard of their own: two machines need not agree on the basis of an equal eigenvalue.
"""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from ecif.curvature import ekfac
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import Job
from worker import curvatures
from worker.batch_ranges import batch_ranges, batches_of, pairs_of
from worker.job_view import single
from worker.problem import open_problem
from worker.task import Done, Task
from worker.tensors import get_tensors, put_tensors


def shards(session: Session, job: Job, spec: JobSpec) -> list[Planned]:
    """Whole batches each, of a pass over the data; none where nothing asks for EK-FAC."""
    return batch_ranges(single(session, job, Phase.PLAN) or {}, spec) if curvatures.needs_ekfac(spec) else []


def bases_shards(_session: Session, _job: Job, spec: JobSpec) -> list[Planned]:
    """One."""
    return [Planned({}, 1)] if curvatures.needs_ekfac(spec) else []


def factors(task: Task) -> Done:
    """Sum the factors over the batches of a shard."""
    with open_problem(task) as problem:
        seed = problem.view.spec.objective.seed
        sums = ekfac.merge(
            ekfac.factors(problem.objective, problem.params, batch, index, ekfac.DRAWS, seed)
            for index, batch in batches_of(problem)
        )
        blob = put_tensors(task.blobs, task.blob_name("sums.safetensors"), sums)
        return Done({"sums": blob}, pairs_of(problem))


def bases(task: Task) -> Done:
    """Merge all factors and find their eigenvectors."""
    with open_problem(task) as problem:

        def parts() -> Iterator[ekfac.Sums]:
            for output in problem.view.outputs[Phase.FACTORS]:
                task.lease.check()
                part = get_tensors(task.blobs, output["sums"])
                yield {name: tensor.to(problem.device) for name, tensor in part.items()}

        found = ekfac.bases(ekfac.merge(parts()))
        tensors = {f"left.{name}": Q for name, Q in found.left.items()}
        tensors |= {f"right.{name}": Q for name, Q in found.right.items()}
        return Done({"bases": put_tensors(task.blobs, task.blob_name("bases.safetensors"), tensors)}, 1)


def eigenvalues(task: Task) -> Done:
    """Sum the curvature along the bases over the batches of a shard, with other labels than the factors had."""
    with open_problem(task) as problem:
        seed, found = problem.view.spec.objective.seed + 1, curvatures.bases(problem)
        sums = ekfac.merge(
            ekfac.curvatures(problem.objective, problem.params, batch, index, found, ekfac.DRAWS, seed)
            for index, batch in batches_of(problem)
        )
        blob = put_tensors(task.blobs, task.blob_name("sums.safetensors"), sums)
        return Done({"sums": blob}, pairs_of(problem))
