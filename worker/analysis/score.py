"""Score: every pair of some whole batches, along every direction, with one Jacobian-vector product a batch."""

import torch
from torch import Tensor

from ecif import Batch, Projected, flatten, normalise, positive
from ecif.directions import Directions
from ecif.parameters import size
from store.shards import Planned
from worker.analysis.baselines import Baselines
from worker.analysis.curvatures import directions, get_terms, solved_curvature
from worker.analysis.problem import Problem, batch_ranges, batches_of, open_problem, pairs_of, places_of
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import CurvatureOutput, ProjectOutput, ScoreOutput
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """Whole batches each; none where queries are traced instead."""
    return [] if planning.spec.task == "traceback" else batch_ranges(planning)


def run(task: Task) -> Done[ScoreOutput]:
    """Score the batches of a shard."""
    with open_problem(task) as problem:
        along = _directions(problem)
        baselines = Baselines(problem)
        columns: dict[str, list[Tensor]] = {}
        for _, batch in batches_of(problem):
            for name, values in (_score(problem, along, batch) | baselines.score(batch)).items():
                columns.setdefault(name, []).append(values.double().cpu())
        tensors = {name: torch.cat(values) for name, values in columns.items()}
        tensors["places"] = torch.cat(places_of(problem))
        if problem.view.spec.influence.curvature == "projected" and along is not None:
            curvature = solved_curvature(problem)
            assert isinstance(curvature, Projected)  # noqa: S101
            tensors["self_influence"] = _from_store(problem, curvature)
        blob = put_tensors(task.blobs, task.blob_name("scores.safetensors"), tensors)
        total = pairs_of(problem)
    return Done(ScoreOutput(blob, total), total)


def _directions(problem: Problem) -> Directions | None:
    """What the curvature phase left to push forward; `None` where there was no such phase."""
    solved = problem.view.output(CurvatureOutput)
    if solved is None:
        return None
    content, nothing = directions(problem), flatten(problem.params).new_zeros(0, size(problem.params))
    method = solved.self_influence.method
    return Directions(
        content.get("validation", nothing).to(nothing),
        content.get("probes", nothing).to(nothing),
        solved_curvature(problem) if method == "exact" else None,
        get_terms(problem, content) if method == "kronecker" else None,
        leave_one_out="leave_one_out" in problem.view.spec.methods,
    )


def _score(problem: Problem, along: Directions | None, batch: Batch) -> dict[str, Tensor]:
    if along is None:
        with torch.no_grad():
            columns = {"pair_loss": positive(problem.objective.similarity(problem.params, batch))}
    else:
        columns = along.score(problem.objective, problem.params, batch, problem.view.spec.influence.negative)
    columns["clip_score"] = _clip_score(problem, batch)
    return columns


def _from_store(problem: Problem, curvature: Projected) -> Tensor:
    """Self-influence of the pairs of this shard, in its order: the projection was cut into the same shards."""
    projected = problem.view.outputs(ProjectOutput)[problem.task.claim.index]
    rows = get_tensors(problem.task.blobs, projected.store)["rows"]
    return curvature.self_influence(rows.to(problem.device)).cpu()


@torch.no_grad()
def _clip_score(problem: Problem, batch: Batch) -> Tensor:
    """(B,), the cosine of each pair's two embeddings."""
    text, image = problem.objective.embed(problem.as_given, batch.images, batch.texts)
    return (normalise(text) * normalise(image)).sum(1)
