"""The method `magic` of a job: a fit of its own on a fixed schedule, and the derivative of its end in every pair."""

import torch
from torch import Tensor

from ecif.curvature.choice import in_double
from ecif.fit.adam import automatic_learning_rate
from ecif.fit.scheduled import Schedule, ScheduledFit, typical_square
from ecif.methods.magic import magic
from store.errors import InvalidError
from worker.analysis.problem import Problem
from worker.outputs import MagicReport

_ROOT = 0.01
"""Under Adam's square root, as a share of the mean square of the batches' gradients at the start."""


def magic_scores(problem: Problem) -> tuple[Tensor, MagicReport]:
    """(the score of every training pair (N,) float64, what the fit was).

    Raises:
        InvalidError: the fit of that learning rate does not stay finite.
    """
    spec = problem.view.spec
    assert spec.fit is not None  # noqa: S101  refused when the job came in
    placed = list(problem.placed_batches())
    objective, start, batches = in_double(problem.objective, problem.initial, lambda: (batch for _, batch in placed))
    _, _, validating = in_double(problem.objective, problem.initial, problem.validation_batches)
    training = list(batches())
    rate = spec.fit.learning_rate
    peak = automatic_learning_rate(start) if rate == "auto" else rate
    # Of heads whose every gradient is 0 any root will do.
    root = _ROOT * typical_square(objective, start, training) or 1.0
    fit = ScheduledFit(objective, start, training, Schedule(spec.fit.epochs or 1, peak, root))
    try:
        derived = magic(
            fit,
            list(validating()),
            problem.roster.n_validation,
            spec.influence.negative,
            on_step=lambda _: problem.task.lease.check(),
        )
    except ValueError as error:
        raise InvalidError("magic_not_finite", f"magic: {error}", "fit.learning_rate") from error
    scores = torch.zeros(problem.roster.n_pairs, dtype=torch.float64)
    for (places, _), positive, negative in zip(placed, derived.positive, derived.negative, strict=True):
        scores[places] += positive + negative
    return scores, MagicReport(spec.fit.epochs or 1, fit.steps, peak, root, derived.loss)
