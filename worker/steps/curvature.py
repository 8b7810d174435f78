"""Curvature: one block solve turns the validation gradient, and the probes for self-influence, into directions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import (
    Curvature,
    DampingChoice,
    Dense,
    Diagonal,
    Ekfac,
    GaussNewton,
    Hessian,
    Identity,
    NegativeCurvature,
    OnState,
    Solution,
    State,
    choose_damping,
    probe_rhs,
)
from ecif.curvature.dense import LARGEST as LARGEST_DENSE
from ecif.parameters import row_dot, size
from store.errors import InvalidError
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import Job
from worker.checkpoints import keeper, resumed
from worker.problem import Problem, open_problem, set_gradient
from worker.task import Done, Json, Task
from worker.tensors import put_tensors

_PROBES = 16
_DIAGONAL_PROBES = 8


@dataclass(frozen=True)
class _Effort:
    """How far a solve goes. A pass over cached features is cheap; one through whole towers is not.

    tolerance: relative residual; scores are less sensitive than this to the last digits of a direction.
    largest_condition: what `damping: "auto"` keeps the condition number under, and so the number of passes.
    by_diagonal: self-influence through the curvature's diagonal instead of a solve for every probe.
    """

    tolerance: float
    max_passes: int
    largest_condition: float
    by_diagonal: bool


_EFFORT = {
    "heads": _Effort(1e-3, 500, math.inf, by_diagonal=False),
    "lora": _Effort(1e-2, 100, 300.0, by_diagonal=True),
    "all": _Effort(1e-2, 100, 300.0, by_diagonal=True),
}


def shards(_session: Session, _job: Job, spec: JobSpec) -> list[Planned]:
    """One shard, or none where no method needs the curvature."""
    if spec.task == "traceback":  # its right-hand sides are the queries'
        return []
    return [Planned({})] if "ecif" in spec.methods or spec.task == "removal" else []


@contextmanager
def refused_curvature(asked: str) -> Iterator[None]:
    """Tell a curvature that cannot be inverted as what it is: a setting that does not fit these data.

    Raises:
        InvalidError: instead of NegativeCurvature.
    """
    try:
        yield
    except NegativeCurvature as error:
        if asked == "hessian":
            raise InvalidError("negative_curvature", str(error), "influence.curvature") from error
        message = f"the {asked} matrix is singular to rounding: raise objective.l2 or influence.damping"
        raise InvalidError("singular_curvature", message, "influence.damping") from error


@dataclass(frozen=True)
class _Sides:
    """The right-hand sides (k, P) and what each row is."""

    rhs: Tensor
    validation: int | None
    gradient: int | None
    removal: int | None
    probes: int


def run(task: Task) -> Done:
    """Solve for every direction that the score phase pushes forward.

    Raises:
        InvalidError: the exact Hessian is not positive definite here.
    """
    with open_problem(task) as problem:
        asked = problem.view.spec.influence
        damping = choose_damping(
            asked.damping,
            problem.objective,
            problem.params,
            problem.training_batches,
            largest_condition=effort(problem).largest_condition,
            seed=problem.view.spec.objective.seed,
        )
        sides, facts = _sides(problem, damping.value)
        with refused_curvature(asked.curvature):
            solution = _solve(problem, damping.value, sides, task)
            method = _self_influence(problem)
            dense = Dense.of(_matrix(problem, damping.value)) if method == "exact" else None
        directions = {"directions": _kept(sides, solution)}
        if sides.removal is not None:
            directions["edit"] = solution.x[sides.removal]
        probes = sides.probes
        if dense is not None:
            directions["factor"] = dense.factor
        elif method == "diagonal":
            probes = _DIAGONAL_PROBES
            drawn = _diagonal(problem, damping.value).probes(probes, problem.view.spec.objective.seed)
            directions["directions"] = torch.cat([directions["directions"], drawn.float()])
        output = {
            "directions": put_tensors(task.blobs, task.blob_name("directions.safetensors"), directions),
            "has_validation": sides.validation is not None,
            "probes": probes,
            "self_influence_method": method,
            **facts,
            **_told(asked.curvature, damping, solution, sides),
        }
    return Done(output, solution.iterations)


def _sides(problem: Problem, damping: float) -> tuple[_Sides, Json]:
    rows: list[Tensor] = []
    facts: Json = {"parameters": size(problem.params)}
    validation = gradient = None
    if problem.roster.n_validation:
        value, validation_gradient = problem.objective.validation_value_and_gradient(
            problem.params, problem.validation_batches(), problem.roster.n_validation
        )
        facts["validation_loss"] = value
        validation = len(rows)
        rows.append(validation_gradient)
    fitted = problem.view.output(Phase.FIT)
    if fitted is None or not fitted["stationary"]:
        value, training_gradient = problem.objective.value_and_gradient(problem.params, problem.training_batches())
        norm = float(training_gradient.norm())
        facts |= {"objective": value, "gradient_norm": norm, "decrement_bound": _bound(problem, damping, norm)}
        if not effort(problem).by_diagonal:  # else the bound must do: a second solve costs as much as the first
            gradient = len(rows)
            rows.append(training_gradient)
    removal = None
    if problem.view.spec.task == "removal":
        removal = len(rows)
        rows.append(set_gradient(problem))
    P, probes = size(problem.params), 0
    sides = torch.stack(rows) if rows else torch.zeros(0, P, dtype=torch.float64, device=problem.device)
    if _self_influence(problem) == "probes":
        probes = _PROBES
        sides = torch.cat([sides, _probes(problem, probes, damping).to(sides)])
    return _Sides(sides, validation, gradient, removal, probes), facts


def effort(problem: Problem) -> _Effort:
    """How far solves go for this job."""
    return _EFFORT[problem.view.spec.objective.scope]


def _self_influence(problem: Problem) -> Literal["exact", "probes", "diagonal"]:
    """How self-influence is had: exactly where the matrix can be written out, else estimated."""
    if problem.view.spec.influence.curvature != "identity":
        if size(problem.params) <= LARGEST_DENSE:
            return "exact"
        if effort(problem).by_diagonal:
            return "diagonal"
    return "probes"


def _diagonal(problem: Problem, damping: float) -> Diagonal:
    seed = problem.view.spec.objective.seed
    return Diagonal.of(problem.objective, problem.params, problem.training_batches, damping=damping, seed=seed)


def _bound(problem: Problem, damping: float, gradient_norm: float) -> float | None:
    """½‖g‖²/(N(δ+λ)), which no Newton decrement exceeds; `None` where nothing bounds it."""
    ridge = problem.objective.ridge(damping)
    return 0.5 * gradient_norm**2 / ridge if ridge else None


def _probes(problem: Problem, count: int, damping: float) -> Tensor:
    seed = problem.view.spec.objective.seed
    if problem.view.spec.influence.curvature == "identity":
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, size(problem.params), dtype=torch.float64, generator=generator)
    return probe_rhs(problem.objective, problem.params, problem.training_batches, count, seed, damping)


def _matrix(problem: Problem, damping: float) -> GaussNewton | Hessian:
    kind = Hessian if problem.view.spec.influence.curvature == "hessian" else GaussNewton
    return kind(
        problem.objective,
        problem.params,
        problem.training_batches,
        damping=damping,
        tolerance=effort(problem).tolerance,
        max_iterations=effort(problem).max_passes,
    )


def solver(problem: Problem, damping: float) -> Curvature:
    """The curvature that this job asked for."""
    wanted = problem.view.spec.influence.curvature
    if wanted == "identity":
        return Identity()
    if wanted == "ekfac":
        seed = problem.view.spec.objective.seed
        return Ekfac.of(problem.objective, problem.params, problem.training_batches, damping=damping, seed=seed)
    return _matrix(problem, damping)


def _solve(problem: Problem, damping: float, sides: _Sides, task: Task) -> Solution:
    curvature = solver(problem, damping)
    keep: OnState = keeper(task)

    def on_state(state: State) -> None:
        task.lease.progress(int(state["iteration"]))
        keep(state)

    return curvature.solve(sides.rhs, state=resumed(task), on_state=on_state)


def _kept(sides: _Sides, solution: Solution) -> Tensor:
    """The directions to score along, (k, P): the validation's first, then the probes; the others are used elsewhere."""
    rows = [index for index in range(len(sides.rhs)) if index not in (sides.gradient, sides.removal)]
    return solution.x[rows].float()


def _told(curvature: str, damping: DampingChoice, solution: Solution, sides: _Sides) -> Json:
    told: Json = {
        "curvature": curvature,
        "damping": damping.value,
        "damping_reason": damping.reason,
        "iterations": solution.iterations,
        "relative_residual": float(solution.relative_residual.max()) if len(solution.relative_residual) else 0.0,
        "converged": solution.converged,
        "eigenvalue_range": list(solution.eigenvalue_range) if solution.eigenvalue_range else None,
    }
    if sides.gradient is not None:
        gradient, step = sides.rhs[sides.gradient], solution.x[sides.gradient]
        told["newton_decrement"] = 0.5 * float(row_dot(gradient[None], step[None].to(gradient))[0])
    return told
