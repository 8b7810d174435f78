"""Project: keep the gradients of every pair inside a random subspace, and sum the curvature there."""

import torch

from ecif import project_batch
from store.shards import Planned
from worker.batch_ranges import batch_ranges, batches_of, places_of
from worker.curvatures import needs_projection, projection_of
from worker.outputs import ProjectOutput
from worker.pipeline import Planning
from worker.problem import open_problem
from worker.task import Done, Task
from worker.tensors import put_tensors


def cut(planning: Planning) -> list[Planned]:
    """Whole batches each, the same as when pairs are scored; none for other curvatures."""
    return batch_ranges(planning) if needs_projection(planning.spec) else []


def run(task: Task) -> Done[ProjectOutput]:
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
