"""The sums over batches that curvatures are made of, each in shards: the Kronecker factors of EK-FAC, the bases they
have, the eigenvalues along those; and the projected gradients of every pair with the curvature in their subspace."""

from collections.abc import Callable, Iterator

import torch

from ecif import project_batch
from ecif.curvature import ekfac
from store.job_phases import needs_ekfac, needs_projection
from store.phases import Phase
from store.shards import Planned
from worker.analysis import curvatures
from worker.analysis.curvatures import projection_of
from worker.analysis.problem import batch_ranges, batches_of, open_problem, pairs_of, places_of
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BasesOutput, EigenvaluesOutput, FactorsOutput, Output, ProjectOutput
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """Whole batches each, of a pass over the data, the same as when pairs are scored; for the bases one shard, because
    two machines need not agree on the basis of an equal eigenvalue; none where the phase is not needed."""
    needed = needs_projection if planning.phase is Phase.PROJECT else needs_ekfac
    if not needed(planning.spec):
        return []
    return [Planned({}, 1)] if planning.phase is Phase.BASES else batch_ranges(planning)


def run(task: Task) -> Done[Output]:
    """Do a shard of any of the four."""
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


def project(task: Task) -> Done[ProjectOutput]:
    """Project the batches of a shard."""
    with open_problem(task) as problem:
        projection, negative = projection_of(problem), problem.view.spec.influence.negative
        M = torch.zeros(projection.size, projection.size, dtype=torch.float64, device=problem.device)
        rows = []
        for _, batch in batches_of(problem):
            part = project_batch(problem.objective, problem.params, batch, projection, negative)
            rows.append(part.rows.float().cpu())
            M += part.curvature
        places = torch.cat(places_of(problem))
        store = {"rows": torch.cat(rows), "places": places}
        output = ProjectOutput(
            store=put_tensors(task.blobs, task.blob_name("store.safetensors"), store),
            curvature=put_tensors(task.blobs, task.blob_name("curvature.safetensors"), {"M": M}),
        )
    return Done(output, len(places))


_RUN: dict[Phase, Callable[[Task], Done[Output]]] = {
    Phase.FACTORS: factors,
    Phase.BASES: bases,
    Phase.EIGENVALUES: eigenvalues,
    Phase.PROJECT: project,
}
