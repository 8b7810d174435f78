"""Project: keep the gradients of every pair inside a random subspace, and sum the curvature there."""

import torch
from sqlalchemy.orm import Session

from ecif import project_batch
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import Job
from worker.batch_ranges import batch_ranges, batches_of, places_of
from worker.curvatures import needs_projection, projection_of
from worker.job_view import single
from worker.problem import open_problem
from worker.task import Done, Task
from worker.tensors import put_tensors


def shards(session: Session, job: Job, spec: JobSpec) -> list[Planned]:
    """Whole batches each, the same as when pairs are scored; none for other curvatures."""
    return batch_ranges(single(session, job, Phase.PLAN) or {}, spec) if needs_projection(spec) else []


def run(task: Task) -> Done:
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
        kept = {"rows": torch.cat(rows), "places": places}
        output = {
            "store": put_tensors(task.blobs, task.blob_name("store.safetensors"), kept),
            "curvature": put_tensors(task.blobs, task.blob_name("curvature.safetensors"), {"M": M}),
        }
    return Done(output, len(places))
