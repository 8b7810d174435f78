"""The curvature that a job asked for, ready to invert: how far a solve goes, its damping, and what it is built from."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ecif import (
    Curvature,
    DampingChoice,
    Dense,
    Ekfac,
    Identity,
    NegativeCurvature,
    Projected,
    Projection,
    choose_damping,
)
from ecif.curvature import choice
from ecif.curvature.choice import EFFORT, Effort, PerPair, Probes, from_products
from ecif.curvature.ekfac import Bases
from ecif.curvature.kronecker import Terms
from ecif.heads import TOWERS
from store.errors import InvalidError
from store.specification import JobSpec
from worker.analysis.problem import Problem
from worker.analysis.tensors import get_tensors
from worker.outputs import BasesOutput, CurvatureOutput, EigenvaluesOutput, ProjectOutput


def effort(spec: JobSpec) -> Effort:
    """How far solves go for a job."""
    return EFFORT[spec.objective.scope]


@contextmanager
def refused_curvature(curvature: str) -> Iterator[None]:
    """Tell a curvature that cannot be inverted as what it is: a setting that does not fit these data.

    Raises:
        InvalidError: instead of NegativeCurvature.
    """
    try:
        yield
    except NegativeCurvature as error:
        if curvature == "hessian":
            raise InvalidError("negative_curvature", str(error), "influence.curvature") from error
        message = f"the {curvature} matrix is singular to rounding: raise objective.l2 or influence.damping"
        raise InvalidError("singular_curvature", message, "influence.damping") from error


def damping_of(problem: Problem) -> DampingChoice:
    """λ of a job, as set or chosen; a pass over the data where it has to be chosen."""

    def choose() -> dict[str, Tensor]:
        chosen = choose_damping(
            problem.view.spec.influence.damping,
            problem.objective,
            problem.params,
            problem.training_batches,
            largest_condition=effort(problem.view.spec).largest_condition,
            seed=problem.view.spec.objective.seed,
        )
        mean = math.nan if chosen.mean_eigenvalue is None else chosen.mean_eigenvalue
        numbers = torch.tensor([chosen.value, mean], dtype=torch.float64)
        return {"numbers": numbers, "reason": torch.tensor(list(chosen.reason.encode()), dtype=torch.uint8)}

    made = problem.notebook.once("damping", choose)
    value, mean = made["numbers"].tolist()
    return DampingChoice(value, None if math.isnan(mean) else mean, bytes(made["reason"].tolist()).decode())


def prepare(problem: Problem, damping: float) -> Curvature:
    """The curvature that a job asked for, built from the sums of the phases before or from passes over the data.

    Raises:
        InvalidError: it cannot be inverted here.
    """
    wanted = problem.view.spec.influence.curvature
    if wanted == "identity":
        return Identity()
    if wanted == "ekfac":
        return ekfac(problem, damping)
    with refused_curvature(wanted):
        if wanted == "projected":
            return _projected(problem, damping)
        method = per_pair(problem)
        # What is written out asks for many products and can go on from none of them; it is small.
        batches = (lambda: iter(problem.training_batches())) if method == "exact" else problem.training_batches
        return from_products(
            wanted,
            problem.objective,
            problem.params,
            batches,
            damping=damping,
            scope=problem.view.spec.objective.scope,
            method=method,
            seed=problem.view.spec.objective.seed,
            notebook=problem.notebook,
        )


def solved_curvature(problem: Problem) -> Curvature:
    """What the curvature phase prepared, for a phase after it."""
    solved = problem.view.output(CurvatureOutput)
    assert solved is not None  # noqa: S101  asked for only where there was one
    factor = directions(problem).get("factor")
    if factor is None:
        return prepare(problem, solved.damping)
    factor = factor.to(problem.device)
    if problem.view.spec.influence.curvature == "projected":
        return Projected(projection_of(problem), factor)
    return Dense(factor @ factor.mT, factor)


def put_terms(terms: dict[str, Terms]) -> dict[str, Tensor]:
    """The Kronecker terms of both heads as tensors to be kept beside the directions."""
    return {f"{tower}.{part}": tensor for tower, of in terms.items() for part, tensor in of._asdict().items()}


def get_terms(problem: Problem, solved: dict[str, Tensor]) -> dict[str, Terms]:
    """What `put_terms` made."""
    return {tower: Terms(*(solved[f"{tower}.{part}"].to(problem.device) for part in Terms._fields)) for tower in TOWERS}


def directions(problem: Problem) -> dict[str, Tensor]:
    """The tensors that the curvature phase left; none where there was no such phase."""
    solved = problem.view.output(CurvatureOutput)
    return get_tensors(problem.task.blobs, solved.solved) if solved is not None else {}


def per_pair(problem: Problem) -> PerPair:
    """How this job has what would need a solve for every pair."""
    spec = problem.view.spec
    return choice.per_pair(
        spec.influence.curvature,
        problem.objective,
        problem.params,
        spec.objective.scope,
        spans=spec.task == "traceback",
    )


def ekfac(problem: Problem, damping: float) -> Ekfac:
    """From the sums that the phases before have made."""
    eigenbases = bases(problem)
    along: dict[str, Tensor] = {}
    for output in problem.view.outputs(EigenvaluesOutput):
        part = get_tensors(problem.task.blobs, output.sums)
        along = {name: along[name] + part[name] for name in part} if along else part
    on_device = {name: along[name].to(problem.device) for name in problem.params}
    return Ekfac.finish(problem.objective, problem.params, eigenbases, on_device, damping=damping)


def _projected(problem: Problem, damping: float) -> Projected:
    parts = (get_tensors(problem.task.blobs, out.curvature)["M"] for out in problem.view.outputs(ProjectOutput))
    on_device = (part.to(problem.device) for part in parts)
    return Projected.finish(problem.objective, projection_of(problem), on_device, damping)


def projected_rows(problem: Problem, shard: int) -> tuple[Tensor, Tensor]:
    """Which training pairs a shard of the projection holds, (n,), and their projected gradients (n, 2, K) float64, each
    averaged over all partitions: `shard` is one of the first partition."""
    outputs, partitions = problem.view.outputs(ProjectOutput), len(problem.roster.partitions)
    own = get_tensors(problem.task.blobs, outputs[shard].store)
    places, rows = own["places"], own["rows"].to(problem.device).double()
    row_of = torch.full((problem.roster.n_pairs,), -1)
    row_of[places] = torch.arange(len(places))
    for output in outputs[len(outputs) // partitions :]:
        problem.task.lease.check()
        other = get_tensors(problem.task.blobs, output.store)
        row = row_of[other["places"]]
        rows[row[row >= 0].to(problem.device)] += other["rows"][row >= 0].to(problem.device).double()
    return places, rows / partitions


def bases(problem: Problem) -> Bases:
    """The eigenbases that the bases phase found."""
    output = problem.view.output(BasesOutput)
    assert output is not None  # noqa: S101  asked for only where there was one
    tensors = get_tensors(problem.task.blobs, output.bases)
    side = {
        which: {name[len(which) :]: Q.to(problem.device) for name, Q in tensors.items() if name.startswith(which)}
        for which in ("left.", "right.")
    }
    return Bases(side["left."], side["right."])


def projection_of(problem: Problem) -> Projection:
    """The random projection of a job: drawn again wherever it is needed, from the seed."""
    return Projection.of_size(problem.params, problem.view.spec.objective.seed)


def draw_probes(problem: Problem, curvature: Curvature, damping: float) -> Probes:
    """The directions that self-influence of this job is estimated along."""
    return choice.draw_probes(
        curvature,
        problem.objective,
        problem.params,
        problem.training_batches,
        method=per_pair(problem),
        damping=damping,
        seed=problem.view.spec.objective.seed,
        notebook=problem.notebook,
    )
