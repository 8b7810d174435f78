"""Score: every pair of some whole batches, along every direction, with one Jacobian-vector product a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import (
    Batch,
    Curvature,
    Projected,
    exact_self_influence,
    flatten,
    normalise,
    positive,
    probed_self_influence,
    score_batch,
)
from ecif.parameters import size
from ecif.scoring import BatchScores
from store.shards import Planned
from worker.analysis.baselines import Baselines
from worker.analysis.curvatures import directions, per_pair, solved_curvature
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
        along = _Directions.load(problem)
        baselines = Baselines(problem)
        columns: dict[str, list[Tensor]] = {}
        for _, batch in batches_of(problem):
            for name, values in (_score(problem, along, batch) | baselines.score(batch)).items():
                columns.setdefault(name, []).append(values.double().cpu())
        tensors = {name: torch.cat(values) for name, values in columns.items()}
        tensors["places"] = torch.cat(places_of(problem))
        if along is not None and isinstance(along.curvature, Projected):
            tensors["self_influence"] = _from_store(problem, along.curvature)
        blob = put_tensors(task.blobs, task.blob_name("scores.safetensors"), tensors)
        total = pairs_of(problem)
    return Done(ScoreOutput(blob, total), total)


@dataclass(frozen=True)
class _Directions:
    """What the curvature phase left: (k, P) to push forward, w for the validation loss and solved probes, and, where
    self-influence is had for each pair, the curvature itself."""

    validation: Tensor
    probes: Tensor
    curvature: Curvature | None

    @classmethod
    def load(cls, problem: Problem) -> "_Directions | None":
        if problem.view.output(CurvatureOutput) is None:
            return None
        content, nothing = directions(problem), flatten(problem.params).new_zeros(0, size(problem.params))
        each = per_pair(problem) in ("exact", "projected")
        return cls(
            content.get("validation", nothing).to(nothing),
            content.get("probes", nothing).to(nothing),
            solved_curvature(problem) if each else None,
        )


def _score(problem: Problem, along: _Directions | None, batch: Batch) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    if along is None:
        with torch.no_grad():
            columns["pair_loss"] = positive(problem.objective.similarity(problem.params, batch))
    else:
        mode, first = problem.view.spec.influence.negative, len(along.validation)
        rows = torch.cat([along.validation, along.probes])
        scores = score_batch(problem.objective, problem.params, batch, rows, mode)
        columns["pair_loss"] = scores.pair_loss
        if first:
            columns["positive_influence"] = scores.positive[0]
            columns["negative_influence"] = scores.negative[0]
        if len(along.probes):
            probed = BatchScores(scores.positive[first:], scores.negative[first:], scores.pair_loss, scores.clip_score)
            columns["self_influence"] = probed_self_influence(probed).value
        elif along.curvature is not None and not isinstance(along.curvature, Projected):
            columns["self_influence"] = exact_self_influence(
                problem.objective, problem.params, batch, along.curvature, mode
            ).value
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
