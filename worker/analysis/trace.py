"""Trace: hold training pairs responsible for predictions, by relative influence (the paper's section 5).

Both influence functions of a pair span what its removal can do to the model; the score is the signed cosine of a
query's gradient with that span. For a query q, `H⁻¹g_q` pushed forward gives its products with all pairs at once; the
lengths inside the span are exact for small models and estimated by random probes above. Where the pairs' gradients
were kept inside a subspace (`projected`), all of it is read from there, and the model is not run again.
"""

from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from ecif import Curvature, Projected, candidate_scores, query_gradients, query_losses
from ecif.over_partitions import influence_gram_of
from ecif.scoring import score_batches
from ecif.traceback import SpanProducts, probed_gram
from store import datasets
from store.shards import Planned
from store.specification import Queries
from worker.analysis.curvatures import (
    directions,
    per_pair,
    projected_rows,
    refused_curvature,
    solved_curvature,
)
from worker.analysis.problem import Problem, open_problem
from worker.analysis.query_texts import QueryBatch, read_queries
from worker.analysis.tensors import keeper, put_tensors, resumed
from worker.attempts.task import Done, Task
from worker.outputs import CurvatureOutput, PlanOutput, ProjectOutput, RowRange, Solve, TraceOutput
from worker.pipeline import Planning

_AT_ONCE, _AT_ONCE_FROM_STORE = 64, 1024  # queries that share their passes over the data
_GRADIENTS = 2**28  # numbers that the gradients of the queries of a shard may hold
_PRODUCTS = 2**26  # and their products with all pairs


def cut(planning: Planning) -> list[Planned]:
    """Some queries each."""
    spec = planning.spec
    if spec.queries is None:
        return []
    pairs, parameters = planning.output(PlanOutput).pairs, planning.output(CurvatureOutput).parameters
    stored = spec.influence.curvature == "projected"
    most = _AT_ONCE_FROM_STORE if stored else min(_AT_ONCE, _GRADIENTS // parameters)
    at_once = max(1, min(most, _PRODUCTS // pairs))
    count = datasets.get_including_deleted(planning.session, planning.job.queries_dataset_id or "").pair_count or 0
    return [
        Planned(RowRange(first, min(first + at_once, count)).as_json(), pairs) for first in range(0, count, at_once)
    ]


def run(task: Task) -> Done[TraceOutput]:
    """Trace the queries of a shard.

    Raises:
        InvalidError: a query's true text is not a candidate.
    """
    with open_problem(task) as problem:
        queries = problem.view.spec.queries
        assert queries is not None  # noqa: S101  planned only where there are some
        mine = RowRange.from_json(task.claim.payload)
        batch = read_queries(problem, queries, mine.first, mine.last)
        with torch.no_grad():
            S = candidate_scores(problem.objective, problem.params, batch.images, batch.candidates)
        losses_of = _QueryLosses(problem, queries, batch, batch.predicted_by(S))
        curvature = solved_curvature(problem)
        spans = (
            _from_store(losses_of, curvature)
            if isinstance(curvature, Projected)
            else _along_directions(losses_of, curvature)
        )
        responsible = spans.products.most_responsible(spans.gram, queries.top, among=problem.roster.scored)
        tensors = {
            "places": responsible.places,
            "relative_influence": responsible.relative_influence,
            "influence": responsible.influence,
            "positive_influence": responsible.positive_influence,
            "negative_influence": responsible.negative_influence,
        }
        losses = query_losses(S, batch.true, losses_of.predicted, queries.loss).double().cpu()
        output = TraceOutput(
            traced=put_tensors(task.blobs, task.blob_name("traced.safetensors"), tensors),
            queries=batch.report(losses),
            spans=spans.method,
            probes=spans.probes,
            solve=spans.solve,
        )
    return Done(output, problem.roster.n_pairs)


@dataclass(frozen=True)
class _QueryLosses:
    """The losses of some queries, whose gradients are what pairs are held responsible for."""

    problem: Problem
    queries: Queries
    batch: QueryBatch
    predicted: Tensor

    def gradients(self, first: int, last: int) -> Tensor:
        """∇ of the losses of some of the queries, (q, P) float64."""
        batch, mine = self.batch, slice(first, last)
        return query_gradients(
            self.problem.objective,
            self.problem.params,
            batch.images[mine],
            batch.candidates,
            batch.true[mine],
            self.predicted[mine],
            self.queries.loss,
        ).double()


@dataclass(frozen=True)
class _Spans:
    """What the spans need of all pairs, and how it was had."""

    products: SpanProducts
    gram: Tensor
    method: str
    probes: int = 0
    solve: Solve | None = None


def _from_store(losses: _QueryLosses, curvature: Projected) -> _Spans:
    problem, count = losses.problem, len(losses.batch.keys)
    some = range(0, count, _AT_ONCE)
    inside = torch.cat([curvature.projection.down(losses.gradients(at, at + _AT_ONCE)) for at in some])
    n, partitions = problem.roster.n_pairs, len(problem.roster.partitions)
    products = SpanProducts.start(inside.norm(dim=1), n, partitions=1)
    gram = torch.zeros(n, 2, 2, dtype=torch.float64)
    solved, done = curvature.inside(inside), 0
    for shard in range(len(problem.view.outputs(ProjectOutput)) // partitions):
        problem.task.lease.progress(done)
        places, rows = projected_rows(problem, shard)
        moved = curvature.inside(rows)
        products.add(places, torch.einsum("nrk,qk->qnr", rows, solved))
        gram[places] = (moved @ moved.mT).cpu()
        done += len(rows)
    return _Spans(products, gram, "inside the projection")


def _along_directions(losses: _QueryLosses, curvature: Curvature) -> _Spans:
    problem, count = losses.problem, len(losses.batch.keys)
    task, negative = problem.task, problem.view.spec.influence.negative
    gradients = losses.gradients(0, count)
    with refused_curvature(problem.view.spec.influence.curvature):
        solution = curvature.solve(gradients, state=resumed(task), on_state=keeper(task))
    along, exact = solution.x, per_pair(problem) == "exact"
    if not exact:
        along = torch.cat([along, directions(problem)["spans"].to(along)])
    probes = len(along) - count
    method = "exact" if exact else f"estimated by {probes} random probes"
    solve = Solve(solution.iterations, float(solution.relative_residual.max()), solution.converged)
    n, partitions, done = problem.roster.n_pairs, len(problem.roster.partitions), 0
    products = SpanProducts.start(gradients.norm(dim=1), n, partitions)
    along_probes = torch.zeros(probes, n, 2, dtype=torch.float64)
    ours, theirs = tee(problem.placed_batches())
    each = score_batches(problem.objective, problem.params, (batch for _, batch in theirs), along.float(), negative)
    for (places, _), scores in zip(ours, each, strict=True):
        task.lease.progress(done // partitions)
        both = torch.stack([scores.positive, scores.negative], -1).double().cpu()  # (k, B, 2)
        products.add(places, both[:count])
        along_probes[:, places] += both[count:] / partitions
        done += len(places)
    if not exact:
        return _Spans(products, probed_gram(along_probes), method, probes, solve)
    gram = influence_gram_of(
        problem.objective, problem.params, problem.placed_batches, torch.arange(n), curvature, negative
    )
    return _Spans(products, gram, method, solve=solve)
