"""Curvature: one block solve turns the validation gradient, and probes that stand for all pairs, into directions."""

from dataclasses import dataclass, field

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import Curvature, DampingChoice, Dense, OnState, Projected, Solution, State
from ecif.parameters import row_dot, size
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import Job
from worker.checkpoints import keeper, resumed
from worker.curvatures import damping_of, draw_probes, effort, is_used, per_pair, prepare, refused_curvature
from worker.problem import Problem, open_problem, set_gradient
from worker.task import Done, Json, Task
from worker.tensors import put_tensors

_PROBES = {"probes": 16, "diagonal": 8}
_SPAN_PROBES = 32


def shards(_session: Session, _job: Job, spec: JobSpec) -> list[Planned]:
    """One shard, or none where no method needs the curvature."""
    return [Planned({}, effort(spec).max_passes)] if is_used(spec) else []


@dataclass
class _Sides:
    """Right-hand sides by what they are, (k, P) each, solved together."""

    rows: dict[str, Tensor] = field(default_factory=dict)

    def stacked(self, like: Tensor) -> Tensor:
        return torch.cat([like.new_zeros(0, like.shape[1]), *(rows.to(like) for rows in self.rows.values())])

    def split(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.rows, torch.split(x, [len(rows) for rows in self.rows.values()]), strict=True))


def run(task: Task) -> Done:
    """Solve for every direction that the phases after this one push forward.

    Raises:
        InvalidError: the curvature cannot be inverted here.
    """
    with open_problem(task) as problem:
        damping = damping_of(problem)
        curvature = prepare(problem, damping.value)
        method, count = per_pair(problem), 0
        sides, facts = _sides(problem, damping.value)
        kept: dict[str, Tensor] = {}
        if isinstance(curvature, Dense | Projected):
            kept["factor"] = curvature.factor
        elif problem.view.spec.task == "traceback" and method != "exact":
            sides.rows["spans"] = _normal(problem)
        elif method in _PROBES:
            count = _PROBES[method]
            drawn = draw_probes(problem, curvature, damping.value, count)
            (kept if drawn.solved else sides.rows)["probes"] = drawn.rows
        like = torch.zeros(0, size(problem.params), dtype=torch.float64, device=problem.device)
        rhs = sides.stacked(like)
        with refused_curvature(problem.view.spec.influence.curvature):
            solution = _solve(curvature, rhs, task)
        solved = sides.split(solution.x)
        step = solved.pop("gradient", None)
        kept |= {name: rows.double() if name == "edit" else rows.float() for name, rows in solved.items()}
        output = {
            "kept": put_tensors(task.blobs, task.blob_name("kept.safetensors"), kept),
            "self_influence": {"method": method, "probes": count},
            **facts,
            **_reached(problem, damping, solution),
        }
        if step is not None:
            output["newton_decrement"] = 0.5 * float(row_dot(sides.rows["gradient"], step.to(like.dtype))[0])
    return Done(output, solution.iterations)


def _sides(problem: Problem, damping: float) -> tuple[_Sides, Json]:
    sides = _Sides()
    facts: Json = {"parameters": size(problem.params)}
    task = problem.view.spec.task
    if problem.roster.n_validation and task != "traceback":
        facts["validation_loss"], gradient = problem.objective.validation_value_and_gradient(
            problem.params, problem.validation_batches(), problem.roster.n_validation
        )
        sides.rows["validation"] = gradient[None]
    fitted = problem.view.output(Phase.FIT)
    if fitted is None or not fitted["stationary"]:
        value, gradient = problem.objective.value_and_gradient(problem.params, problem.training_batches())
        norm = float(gradient.norm())
        facts |= {"objective": value, "gradient_norm": norm, "decrement_bound": _bound(problem, damping, norm)}
        if not effort(problem.view.spec).by_diagonal:  # else the bound must do: a second solve costs as much again
            sides.rows["gradient"] = gradient[None]
    if task == "removal":
        sides.rows["edit"] = set_gradient(problem)[None]
    return sides, facts


def _normal(problem: Problem) -> Tensor:
    """z (k, P) of covariance I: along H⁻¹z the squares of the pairs' influence functions can be estimated."""
    generator = torch.Generator().manual_seed(problem.view.spec.objective.seed)
    return torch.randn(_SPAN_PROBES, size(problem.params), dtype=torch.float64, generator=generator)


def _bound(problem: Problem, damping: float, gradient_norm: float) -> float | None:
    """½‖g‖²/(N(δ+λ)), which no Newton decrement exceeds; `None` where nothing bounds it."""
    ridge = problem.objective.ridge(damping)
    return 0.5 * gradient_norm**2 / ridge if ridge else None


def _solve(curvature: Curvature, rhs: Tensor, task: Task) -> Solution:
    keep: OnState = keeper(task)

    def on_state(state: State) -> None:
        task.lease.progress(int(state["iteration"]))
        keep(state)

    return curvature.solve(rhs, state=resumed(task), on_state=on_state)


def _reached(problem: Problem, damping: DampingChoice, solution: Solution) -> Json:
    return {
        "curvature": problem.view.spec.influence.curvature,
        "damping": damping.value,
        "damping_reason": damping.reason,
        "iterations": solution.iterations,
        "relative_residual": float(solution.relative_residual.max()) if len(solution.relative_residual) else 0.0,
        "converged": solution.converged,
        "eigenvalue_range": list(solution.eigenvalue_range) if solution.eigenvalue_range else None,
    }
