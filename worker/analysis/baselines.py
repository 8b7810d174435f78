"""Baselines: what the methods beside ECIF need before batches are scored. The same machine with other parts.

docs/methods.md says which role, gradient and curvature each of them is."""

import torch
from torch import Tensor

from ecif import Batch, score_batch
from ecif.at_once import AtOnce
from ecif.methods import lemon, tracin, trak_direction, trak_kernel
from ecif.parameters import Params, unflatten
from store.errors import InvalidError
from store.job_phases import baselines
from store.shards import Planned
from worker.analysis.curvatures import damping_of, ekfac, projection_of, refused_curvature
from worker.analysis.problem import Problem, open_problem
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BaselinesOutput, CurvatureOutput, FitOutput, MethodsToPrepare
from worker.pipeline import Planning

_LARGEST_LEMON = 100_000  # pairs: it compares each with all others, and holds their embeddings
_TRAK_DRAWS = {"heads": 256, "lora": 8, "all": 8}
"""Reverse passes through each batch for TRAK's kernel. Of heads on cached features they are cheap, and as many as a
batch of the default size has margins."""


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


def _damping(problem: Problem) -> float:
    """λ of the job: that of its own curvature, where there is one."""
    solved = problem.view.output(CurvatureOutput)
    return solved.damping if solved is not None else damping_of(problem).value


def _ekfac_if(problem: Problem) -> dict[str, Tensor]:
    gradient = _validation_gradient(problem, problem.params)
    return {"ekfac_if": ekfac(problem, _damping(problem)).solve(gradient[None]).x.float()}


def _trak(problem: Problem) -> dict[str, Tensor]:
    objective, projection, wanted = problem.objective, projection_of(problem), problem.view.spec.objective
    kernel = trak_kernel(
        objective,
        problem.params,
        problem.training_batches,
        projection,
        draws=_TRAK_DRAWS[wanted.scope],
        seed=wanted.seed,
    )
    gradient = _validation_gradient(problem, problem.params)
    with refused_curvature("trak"):
        direction = trak_direction(projection, kernel, gradient[None], objective.ridge(_damping(problem)))
    return {"trak": direction.float()}


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

    def score(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) each. LEMoN is not among them: it is no matter of batches."""
        problem, prepared = self._problem, self._prepared
        columns: dict[str, Tensor] = {}
        if self._checkpoints:
            # Each checkpoint weighs the same: the learning rate along a fit says little where Adam scales every weight.
            rates = [1 / len(self._checkpoints)] * len(self._checkpoints)
            columns["tracin"] = tracin(problem.objective, self._checkpoints, rates, list(prepared["tracin"]), batch)
        along = [name for name in ("ekfac_if", "trak") if name in prepared]
        if along:
            directions = torch.cat([prepared[name] for name in along])
            positive = score_batch(problem.objective, problem.params, batch, directions).positive
            columns |= dict(zip(along, positive, strict=True))
        return columns
