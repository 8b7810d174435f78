"""Score: every pair of some whole batches, along every direction, with one Jacobian-vector product a batch."""

from dataclasses import dataclass

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import Batch, Dense, exact_self_influence, normalise, positive, probed_self_influence, score_batch
from ecif.scoring import BatchScores
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import Job
from worker.job_view import single
from worker.problem import Problem, open_problem
from worker.steps.baseline_scores import Baselines
from worker.task import Done, Json, Task
from worker.tensors import get_tensors, put_tensors

_PAIRS_A_SHARD = 16_384


def shards(session: Session, job: Job, spec: JobSpec) -> list[Planned]:
    """Whole batches of one partition, about as many pairs in each shard."""
    if spec.task == "traceback":
        return []
    plan = single(session, job, Phase.PLAN) or {}
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


def run(task: Task) -> Done:
    """Score the batches of a shard."""
    payload = task.claim.payload
    with open_problem(task) as problem:
        directions = _Directions.load(problem)
        baselines = Baselines(problem)
        mine = problem.roster.batches(payload["partition"])[payload["first"] : payload["last"]]
        total = sum(len(places) for places in mine)
        columns: dict[str, list[Tensor]] = {}
        done = 0
        for places in mine:
            task.lease.progress(done)
            batch = problem.batch(places)
            for name, values in (_score(problem, directions, batch) | baselines.score(batch)).items():
                columns.setdefault(name, []).append(values.double().cpu())
            done += len(places)
        tensors = {name: torch.cat(values) for name, values in columns.items()}
        tensors["places"] = torch.cat(mine)
        blob = put_tensors(task.blobs, task.blob_name("scores.safetensors"), tensors)
    return Done({"scores": blob, "pairs": total}, total)


@dataclass(frozen=True)
class _Directions:
    """What the curvature phase left: w for the validation loss, solved probes, a dense factor where exact."""

    rows: Tensor
    has_validation: bool
    probes: int
    dense: Dense | None

    @classmethod
    def load(cls, problem: Problem) -> "_Directions | None":
        made: Json | None = problem.view.output(Phase.CURVATURE)
        if made is None:
            return None
        content = get_tensors(problem.task.blobs, made["directions"])
        dense = None
        if "factor" in content:
            factor = content["factor"].to(problem.device)
            dense = Dense(factor @ factor.mT, factor)
        return cls(content["directions"].to(problem.device), made["has_validation"], made["probes"], dense)


def _score(problem: Problem, directions: _Directions | None, batch: Batch) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    if directions is None:
        with torch.no_grad():
            columns["pair_loss"] = positive(problem.objective.similarity(problem.params, batch))
    else:
        mode = problem.view.spec.influence.negative
        scores = score_batch(problem.objective, problem.params, batch, directions.rows, mode)
        columns["pair_loss"] = scores.pair_loss
        if directions.has_validation:
            columns["positive_influence"] = scores.positive[0]
            columns["negative_influence"] = scores.negative[0]
        if directions.dense is not None:
            columns["self_influence"] = exact_self_influence(
                problem.objective, problem.params, batch, directions.dense, mode
            ).value
        elif directions.probes:
            columns["self_influence"] = probed_self_influence(_probes_of(scores, directions.probes)).value
    columns["clip_score"] = _clip_score(problem, batch)
    return columns


def _probes_of(scores: BatchScores, probes: int) -> BatchScores:
    return BatchScores(scores.positive[-probes:], scores.negative[-probes:], scores.pair_loss, scores.clip_score)


@torch.no_grad()
def _clip_score(problem: Problem, batch: Batch) -> Tensor:
    """(B,), the cosine of each pair's two embeddings."""
    text, image = problem.objective.embed(problem.as_given, batch.images, batch.texts)
    return (normalise(text) * normalise(image)).sum(1)
