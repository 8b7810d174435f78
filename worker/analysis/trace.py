"""Trace: hold training pairs responsible for predictions, by relative influence (the paper's section 5).

Both influence functions of a pair span what its removal can do to the model; the score is the signed cosine of a
query's gradient with that span. For a query q, `H⁻¹g_q` pushed forward gives its products with all pairs at once; the
lengths inside the span are exact for small models and estimated by random probes above. Where the pairs' gradients
were kept inside a subspace (`projected`), all of it is read from there, and the model is not run again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif import Curvature, Projected, candidate_scores, query_gradients, query_losses, score_batch
from ecif.traceback import SpanProducts, influence_gram, probed_gram
from store import datasets
from store.shards import Planned
from store.specification import Queries
from worker.analysis.curvatures import directions, per_pair, refused_curvature, solved_curvature
from worker.analysis.problem import Problem, open_problem
from worker.analysis.query_texts import QueryBatch, read_queries
from worker.analysis.tensors import get_tensors, keeper, put_tensors, resumed
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
        responsible = spans.products.most_responsible(queries.top, among=problem.roster.scored)
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
    method: str
    solve: Solve | None = None

    @classmethod
    def start(cls, problem: Problem, norms: Tensor, method: str, solve: Solve | None = None) -> "_Spans":
        products = SpanProducts.start(norms, problem.roster.n_pairs, len(problem.roster.partitions))
        return cls(products, method, solve)


def _from_store(losses: _QueryLosses, curvature: Projected) -> _Spans:
    problem, count = losses.problem, len(losses.batch.keys)
    some = range(0, count, _AT_ONCE)
    inside = torch.cat([curvature.projection.down(losses.gradients(at, at + _AT_ONCE)) for at in some])
    spans = _Spans.start(problem, inside.norm(dim=1), "inside the projection")
    solved, done = curvature.inside(inside), 0
    for output in problem.view.outputs(ProjectOutput):
        problem.task.lease.progress(done // len(problem.roster.partitions))
        store = get_tensors(problem.task.blobs, output.store)
        rows = store["rows"].to(problem.device).double()
        moved = curvature.inside(rows)
        spans.products.add(store["places"], torch.einsum("nrk,qk->qnr", rows, solved), moved @ moved.mT)
        done += len(rows)
    return spans


def _along_directions(losses: _QueryLosses, curvature: Curvature) -> _Spans:
    problem, count = losses.problem, len(losses.batch.keys)
    task, negative = problem.task, problem.view.spec.influence.negative
    gradients = losses.gradients(0, count)
    with refused_curvature(problem.view.spec.influence.curvature):
        solution = curvature.solve(gradients, state=resumed(task), on_state=keeper(task))
    along, exact = solution.x, per_pair(problem) == "exact"
    if not exact:
        along = torch.cat([along, directions(problem)["spans"].to(along)])
    method = "exact" if exact else f"estimated by {len(along) - count} random probes"
    solve = Solve(solution.iterations, float(solution.relative_residual.max()), solution.converged)
    spans = _Spans.start(problem, gradients.norm(dim=1), method, solve)
    done, R = 0, len(problem.roster.partitions)
    for partition in range(R):
        for places in problem.roster.batches(partition):
            task.lease.progress(done // R)
            batch = problem.batch(places)
            scores = score_batch(problem.objective, problem.params, batch, along.float(), negative)
            both = torch.stack([scores.positive, scores.negative], -1).double()  # (k, B, 2)
            gram = (
                influence_gram(problem.objective, problem.params, batch, curvature, negative)
                if exact
                else probed_gram(both[count:])
            )
            spans.products.add(places, both[:count], gram)
            done += len(places)
    return spans
