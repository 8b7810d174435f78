"""Baselines: what the methods beside ECIF need before batches are scored. The same machine with other parts.

docs/methods.md says which role, gradient and curvature each of them is."""

import torch
from torch import Tensor

from ecif import Batch, score_batch
from ecif.at_once import AtOnce
from ecif.methods import lemon, tracin, trak_features, trak_kernel, trak_scores
from ecif.parameters import Params, unflatten
from store.errors import InvalidError
from store.job_phases import baselines
from store.shards import Planned
from worker.analysis.curvatures import ekfac, projection_of
from worker.analysis.problem import Problem, open_problem
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BaselinesOutput, FitOutput, MethodsToPrepare
from worker.pipeline import Planning

_LARGEST_LEMON = 100_000  # pairs: it compares each with all others, and holds their embeddings


def cut(planning: Planning) -> list[Planned]:
    """One shard where any of them is asked for."""
    methods = baselines(planning.spec)
    return [Planned(MethodsToPrepare(methods).as_json(), len(methods))] if methods else []


def run(task: Task) -> Done[BaselinesOutput]:
    """Prepare every baseline that was asked for.

    Raises:
        InvalidError: one of them is not made for data or models of this size.
    """
    tensors: dict[str, Tensor] = {}
    methods = MethodsToPrepare.from_json(task.claim.payload).methods
    with open_problem(task) as problem:
        for done, method in enumerate(methods):
            task.lease.progress(done)
            tensors |= _PREPARE[method](problem)
        blob = put_tensors(task.blobs, task.blob_name("baselines.safetensors"), tensors)
    return Done(BaselinesOutput(blob, methods), len(methods))


def checkpoints(problem: Problem) -> list[Params]:
    """The weights along the fit that TracIn sums over; where nothing was fitted, those of the model."""
    fitted = problem.view.output(FitOutput)
    if fitted is None:
        return [problem.params]
    rows = get_tensors(problem.task.blobs, fitted.checkpoints)["checkpoints"]
    return [unflatten(row.to(problem.device), problem.params) for row in rows]


def _validation_gradient(problem: Problem, params: Params) -> Tensor:
    return problem.objective.validation_gradient(params, problem.validation_batches(), problem.roster.n_validation)


def _tracin(problem: Problem) -> dict[str, Tensor]:
    return {"tracin": torch.stack([_validation_gradient(problem, params).float() for params in checkpoints(problem)])}


def _ekfac_if(problem: Problem) -> dict[str, Tensor]:
    gradient = _validation_gradient(problem, problem.params)
    return {"ekfac_if": ekfac(problem, damping=0.0).solve(gradient[None]).x.float()}


def _trak(problem: Problem) -> dict[str, Tensor]:
    projection = projection_of(problem)
    features = (
        trak_features(problem.objective, problem.params, batch, projection).features
        for batch in problem.training_batches()
    )
    kernel = trak_kernel(features) / len(problem.roster.partitions)
    query = projection.down(_validation_gradient(problem, problem.params)[None])
    return {"trak_kernel": kernel, "trak_query": query}


@torch.no_grad()
def _lemon(problem: Problem) -> dict[str, Tensor]:
    n = problem.roster.n_pairs
    if n > _LARGEST_LEMON:
        raise InvalidError(
            "too_many_pairs", f"lemon compares all pairs: at most {_LARGEST_LEMON:,}, not {n:,}", "methods"
        )
    if n < 2:
        return {"lemon": torch.zeros(n, dtype=torch.float64)}
    everyone = torch.arange(n)

    def embedded(some: slice) -> tuple[Tensor, Tensor]:
        batch = problem.batch(everyone[some])
        text, image = problem.objective.embed(problem.as_given, batch.images, batch.texts)
        return text.float(), image.float()

    texts, images = zip(*AtOnce("pairs", 1024).pieces(n, embedded), strict=True)
    return {"lemon": lemon(torch.cat(images), torch.cat(texts)).double()}


_PREPARE = {"tracin": _tracin, "trak": _trak, "ekfac_if": _ekfac_if, "lemon": _lemon}


class Baselines:
    """Those of one job; none where none was asked for."""

    def __init__(self, problem: Problem) -> None:
        output = problem.view.output(BaselinesOutput)
        content = get_tensors(problem.task.blobs, output.prepared) if output is not None else {}
        self._problem = problem
        self._prepared = {name: tensor.to(problem.device) for name, tensor in content.items()}
        self._checkpoints = checkpoints(problem) if "tracin" in content else []
        self._projection = projection_of(problem) if "trak_kernel" in content else None

    def score(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) each. LEMoN is not among them: it is no matter of batches."""
        problem, prepared = self._problem, self._prepared
        columns: dict[str, Tensor] = {}
        if self._checkpoints:
            # Each checkpoint weighs the same: the learning rate along a fit says little where Adam scales every weight.
            rates = [1 / len(self._checkpoints)] * len(self._checkpoints)
            columns["tracin"] = tracin(problem.objective, self._checkpoints, rates, list(prepared["tracin"]), batch)
        if "ekfac_if" in prepared:
            columns["ekfac_if"] = score_batch(problem.objective, problem.params, batch, prepared["ekfac_if"]).positive[
                0
            ]
        if self._projection is not None:
            part = trak_features(problem.objective, problem.params, batch, self._projection)
            ridge = problem.objective.ridge()
            columns["trak"] = trak_scores(part, prepared["trak_kernel"], prepared["trak_query"], ridge)[0]
        return columns
