"""Curvature: one block solve turns the validation gradient, and probes that stand for all pairs, into directions."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ecif import Curvature, Dense, OnState, Projected, Solution, State
from ecif.curvature.choice import PROBES, SPAN_PROBES, kronecker_terms
from ecif.neighbours import Neighbourhood, joint, most_groups
from ecif.parameters import row_dot, size
from ecif.traceback import normal_probes
from store.job_phases import inverts_curvature
from store.shards import Planned
from worker.analysis.curvatures import (
    damping_of,
    draw_probes,
    effort,
    per_pair,
    prepare,
    put_terms,
    refused_curvature,
)
from worker.analysis.problem import Problem, set_gradient
from worker.analysis.rounds import next_round as next_round
from worker.analysis.rounds import run_round
from worker.analysis.tensors import put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import CurvatureOutput, FitOutput, Output, SelfInfluenceMethod
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """One shard, or none where no method needs the curvature."""
    return [Planned({}, effort(planning.spec).max_passes)] if inverts_curvature(planning.spec) else []


@dataclass
class _Sides:
    """Right-hand sides by what they are, (k, P) each, solved together."""

    rows: dict[str, Tensor] = field(default_factory=dict)

    def stacked(self, like: Tensor) -> Tensor:
        return torch.cat([like.new_zeros(0, like.shape[1]), *(rows.to(like) for rows in self.rows.values())])

    def split(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.rows, torch.split(x, [len(rows) for rows in self.rows.values()]), strict=True))


def run(task: Task) -> Done[Output]:
    """Solve for every direction that the phases after this one push forward.

    Raises:
        InvalidError: the curvature cannot be inverted here.
    """
    return run_round(task, _solve_all)


def _solve_all(problem: Problem) -> Done[Output]:
    task, damping = problem.task, damping_of(problem)
    curvature = prepare(problem, damping.value)
    method, count = per_pair(problem), 0
    neighbourhood = _neighbourhood(problem)
    sides, facts = _sides(problem, damping.value, neighbourhood)
    ready: dict[str, Tensor] = {}
    if problem.view.spec.task == "traceback" and method not in ("exact", "projected", "kronecker"):
        sides.rows["spans"] = normal_probes(problem.params, SPAN_PROBES, problem.view.spec.objective.seed)
    elif PROBES[method]:
        count = PROBES[method]
        drawn = draw_probes(problem, curvature, damping.value)
        (ready if drawn.solved else sides.rows)["probes"] = drawn.rows
        if drawn.partners is not None:
            ready["partners"] = drawn.partners.float()
    like = torch.zeros(0, size(problem.params), dtype=torch.float64, device=problem.device)
    rhs = sides.stacked(like)
    with refused_curvature(problem.view.spec.influence.curvature):
        solution = _solve(curvature, rhs, problem)
    if neighbourhood is not None:
        ready |= {"joint": neighbourhood.joint, "group_of": neighbourhood.of}
    if isinstance(curvature, Dense | Projected):
        ready["factor"] = curvature.factor
    elif method == "kronecker":
        ready |= put_terms(kronecker_terms(curvature))
    solved = sides.split(solution.x)
    step = solved.pop("gradient", None)
    ready |= {name: rows.double() if name == "edit" else rows.float() for name, rows in solved.items()}
    if step is not None:
        facts["newton_decrement"] = 0.5 * float(row_dot(sides.rows["gradient"], step.to(like.dtype))[0])
    residual = solution.relative_residual
    output = CurvatureOutput(
        solved=put_tensors(task.blobs, task.blob_name("kept.safetensors"), ready),
        self_influence=SelfInfluenceMethod(method, count),
        parameters=size(problem.params),
        curvature=problem.view.spec.influence.curvature,
        damping=damping.value,
        damping_reason=damping.reason,
        iterations=solution.iterations,
        relative_residual=float(residual.max()) if len(residual) else 0.0,
        converged=solution.converged,
        eigenvalue_range=list(solution.eigenvalue_range) if solution.eigenvalue_range else None,
        **facts,
    )
    return Done(output, solution.iterations)


def _neighbourhood(problem: Problem) -> Neighbourhood | None:
    """The validation pairs in groups; `None` where no method wants them."""
    spec = problem.view.spec
    if "neighbour_influence" not in spec.methods or spec.task == "traceback":
        return None
    made = problem.once("neighbourhood", lambda: _grouped(problem))
    return Neighbourhood(made["joint"], made["group_of"])


@torch.no_grad()
def _grouped(problem: Problem) -> dict[str, Tensor]:
    near = [
        joint(*problem.objective.embed(problem.as_given, batch.images, batch.texts))
        for batch in problem.validation_batches()
    ]
    objective = problem.view.spec.objective
    most = most_groups(objective.batch_size, direct=per_pair(problem) == "exact", towers=objective.scope != "heads")
    made = Neighbourhood.of_pairs(torch.cat(near), most, objective.seed)
    return {"joint": made.joint, "group_of": made.of}


def _sides(
    problem: Problem, damping: float, neighbourhood: Neighbourhood | None
) -> tuple[_Sides, dict[str, float | None]]:
    """What is to be solved, and what was learned of the objective on the way, as the fields of `CurvatureOutput`."""
    sides = _Sides()
    facts: dict[str, float | None] = {}
    task = problem.view.spec.task
    if problem.roster.n_validation and task != "traceback":
        validation = problem.once("validation", lambda: _validation(problem))
        facts["validation_loss"] = float(validation["value"])
        if "ecif" in problem.view.spec.methods or task == "removal":
            sides.rows["validation"] = validation["gradient"][None]
        if neighbourhood is not None:
            of_groups = problem.once("groups", lambda: _of_groups(problem, neighbourhood))
            sides.rows["groups"] = of_groups["gradients"]
    fitted = problem.view.output(FitOutput)
    # Of a misalignment job that has no influence, or a fit that is short by design, the fit's own report is enough.
    reported = task == "misalignment" and (not problem.roster.n_validation or (fitted is not None and fitted.bounded))
    if not reported and (fitted is None or not fitted.stationary):
        here = problem.once("objective", lambda: _objective(problem))
        gradient = here["gradient"]
        norm = float(gradient.norm())
        facts |= {
            "objective": float(here["value"]),
            "gradient_norm": norm,
            "decrement_bound": _bound(problem, damping, norm),
        }
        if not effort(problem.view.spec).by_diagonal:  # else the bound must do: a second solve costs as much again
            sides.rows["gradient"] = gradient[None]
    if task == "removal":
        leaving = problem.once("edit", lambda: {"gradient": set_gradient(problem)})
        sides.rows["edit"] = leaving["gradient"][None]
    return sides, facts


def _validation(problem: Problem) -> dict[str, Tensor]:
    value, gradient = problem.objective.validation_value_and_gradient(
        problem.params, problem.validation_batches(), problem.roster.n_validation
    )
    return {"value": torch.tensor(value, dtype=torch.float64), "gradient": gradient}


def _objective(problem: Problem) -> dict[str, Tensor]:
    value, gradient = problem.objective.value_and_gradient(problem.params, problem.training_batches())
    return {"value": torch.tensor(value, dtype=torch.float64), "gradient": gradient}


def _of_groups(problem: Problem, neighbourhood: Neighbourhood) -> dict[str, Tensor]:
    return {"gradients": neighbourhood.gradients(problem.objective, problem.params, problem.validation_batches())}


def _bound(problem: Problem, damping: float, gradient_norm: float) -> float | None:
    """½‖g‖²/(N(δ+λ)), which no Newton decrement exceeds; `None` where nothing bounds it."""
    ridge = problem.objective.ridge(damping)
    return 0.5 * gradient_norm**2 / ridge if ridge else None


def _solve(curvature: Curvature, rhs: Tensor, problem: Problem) -> Solution:
    keep: OnState = problem.notebook.keep("directions")

    def on_state(state: State) -> None:
        problem.progress(int(state["iteration"]))
        keep(state)

    return curvature.solve(rhs, state=problem.notebook.state("directions"), on_state=on_state)
