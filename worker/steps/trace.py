"""Trace: hold training pairs responsible for predictions, by relative influence (the paper's section 5).

Both influence functions of a pair span what its removal can do to the model; the score is the signed cosine of a
query's gradient with that span. For a query q, `H⁻¹g_q` pushed forward gives its products with all pairs at once; the
lengths inside the span are exact for small models and estimated by random probes above.
"""

from dataclasses import dataclass

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import (
    Batch,
    Curvature,
    Dense,
    Matrix,
    candidate_scores,
    choose_damping,
    query_gradients,
    query_losses,
    relative_influence_from_products,
    role_gradients,
    score_batch,
)
from ecif.curvature.dense import LARGEST as LARGEST_DENSE
from ecif.parameters import size
from store.shards import Planned
from store.specification import JobSpec, Queries
from store.states import Phase
from store.tables import Dataset, Job
from worker.checkpoints import keeper, resumed
from worker.job_view import single
from worker.problem import Problem, open_problem
from worker.query_texts import Asked, ask
from worker.steps.curvature import effort, refused_curvature, solver
from worker.task import Done, Json, Task
from worker.tensors import put_tensors

_AT_ONCE = 64  # queries that share their passes over the data
_PROBES = 32


def shards(session: Session, job: Job, spec: JobSpec) -> list[Planned]:
    """Some queries each."""
    if spec.queries is None:
        return []
    plan = single(session, job, Phase.PLAN) or {}
    count = session.get_one(Dataset, job.queries_dataset_id).pair_count or 0
    return [
        Planned({"first": first, "last": min(first + _AT_ONCE, count)}, plan["pairs"])
        for first in range(0, count, _AT_ONCE)
    ]


def run(task: Task) -> Done:
    """Trace the queries of a shard.

    Raises:
        InvalidError: a query's true text is not a candidate.
    """
    with open_problem(task) as problem:
        queries = problem.view.spec.queries
        assert queries is not None  # noqa: S101  planned only where there are some
        asked = ask(problem, queries, task.claim.payload["first"], task.claim.payload["last"])
        found = _trace(problem, queries, asked, task)
        top = min(queries.top, problem.roster.scored)
        # The most responsible first: without it the query's loss would be lower.
        order = found.relative.argsort(dim=1, stable=True)[:, :top]
        columns = {
            "relative_influence": found.relative,
            "influence": found.positive + found.negative,
            "positive_influence": found.positive,
            "negative_influence": found.negative,
        }
        tensors = {name: values.gather(1, order) for name, values in columns.items()} | {"places": order}
        output = {
            "traced": put_tensors(task.blobs, task.blob_name("traced.safetensors"), tensors),
            "queries": asked.told(found.losses),
            "solver": found.solver,
        }
    return Done(output, problem.roster.n_pairs)


@dataclass(frozen=True)
class _Traced:
    """(q, n) over the scored pairs; losses (q,)."""

    relative: Tensor
    positive: Tensor
    negative: Tensor
    losses: Tensor
    solver: Json


def _trace(problem: Problem, queries: Queries, asked: Asked, task: Task) -> _Traced:
    objective, params = problem.objective, problem.params
    with torch.no_grad():
        S = candidate_scores(objective, params, asked.images, asked.candidates)
    predicted = asked.predicted_by(S)
    gradients = query_gradients(
        objective, params, asked.images, asked.candidates, asked.true, predicted, queries.loss
    ).double()
    influence = problem.view.spec.influence
    damping = choose_damping(
        influence.damping,
        objective,
        params,
        problem.training_batches,
        largest_condition=effort(problem).largest_condition,
        seed=problem.view.spec.objective.seed,
    )
    curvature = solver(problem, damping.value)
    small = size(params) <= LARGEST_DENSE
    with refused_curvature(influence.curvature):
        dense = Dense.of(curvature) if small and isinstance(curvature, Matrix) else None
    q = len(gradients)
    sides = gradients if dense else torch.cat([gradients, _normal(problem).to(gradients)])
    inverse: Curvature = dense or curvature
    with refused_curvature(influence.curvature):
        solution = inverse.solve(sides, state=resumed(task), on_state=keeper(task))
    n = problem.roster.n_pairs
    products = torch.zeros(q, n, 2, dtype=torch.float64)
    gram = torch.zeros(n, 2, 2, dtype=torch.float64)
    done, R = 0, len(problem.roster.partitions)
    for partition in range(R):
        for places in problem.roster.batches(partition):
            task.lease.progress(done // R)
            batch = problem.batch(places)
            scores = score_batch(objective, params, batch, solution.x.float(), influence.negative)
            both = torch.stack([scores.positive, scores.negative], -1).double().cpu()  # (k, B, 2)
            products[:, places] += both[:q] / R
            gram[places] += (_gram(problem, batch, dense) if dense else _probed_gram(both[q:])) / R
            done += len(places)
    scored = problem.roster.scored
    norm = gradients.norm(dim=1).cpu()
    # The influence functions carry a minus sign, and so do their products with a gradient.
    relative = relative_influence_from_products(gram[:scored], -products[:, :scored], norm)
    return _Traced(
        relative=relative,
        positive=products[:, :scored, 0],
        negative=products[:, :scored, 1],
        losses=query_losses(S, asked.true, predicted, queries.loss).double().cpu(),
        solver={
            "curvature": influence.curvature,
            "damping": damping.value,
            "damping_reason": damping.reason,
            "iterations": solution.iterations,
            "relative_residual": float(solution.relative_residual.max()),
            "converged": solution.converged,
            "spans": "exact" if dense else f"estimated by {_PROBES} random probes",
        },
    )


def _normal(problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(problem.view.spec.objective.seed)
    return torch.randn(_PROBES, size(problem.params), dtype=torch.float64, generator=generator)


def _gram(problem: Problem, batch: Batch, dense: Dense) -> Tensor:
    """IᵀI (B, 2, 2) of the influence functions, from explicit gradients."""
    gradients = role_gradients(problem.objective, problem.params, batch, problem.view.spec.influence.negative)
    flat = gradients.flatten(0, 1).double()
    solved = dense.solve(flat).x.reshape(*gradients.shape[:2], -1)
    return (solved @ solved.mT).cpu()


def _probed_gram(probes: Tensor) -> Tensor:
    """The same from the scores (k, B, 2) along H⁻¹z for normal z: E[(H⁻¹z·a)(H⁻¹z·b)] = aᵀH⁻²b."""
    return torch.einsum("kbr,kbs->brs", probes, probes) / len(probes)
