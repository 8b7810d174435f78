"""Fit: bring the trainable weights to a stationary point."""

from typing import Literal

import torch

from ecif import FitSettings, fit, flatten
from store.shards import Planned
from worker.analysis.models import adam_precision
from worker.analysis.problem import Problem
from worker.analysis.rounds import next_round as next_round
from worker.analysis.rounds import run_round
from worker.analysis.tensors import put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import FitOutput, Output
from worker.pipeline import Planning

ADAM_SHARE: dict[str, float | Literal["auto"]] = {"heads": "auto", "lora": 1.0, "all": 1.0}
"""Whole towers want every step they can get; a full-batch search pays off near a minimum, where heads start."""


MANY, MANY_WITH_INFLUENCE = 10_000, 50_000
"""Pairs from which on a fit of heads that nothing is ranked by is a few passes of mini-batches; the second where there
is a validation set, whose influences are of a minimum."""

_FEW_EPOCHS = 5


def cut(planning: Planning) -> list[Planned]:
    """One shard, or none where the model is taken as it is."""
    fit_spec = planning.spec.fit
    return [Planned({}, fit_spec.epochs or 0)] if fit_spec else []


def run(task: Task) -> Done[Output]:
    """Fit the weights of a job."""
    return run_round(task, _fit)


def _fit(problem: Problem) -> Done[Output]:
    task = problem.task
    fit_spec = problem.view.spec.fit
    assert fit_spec is not None  # noqa: S101  planned only where asked for
    assert fit_spec.epochs is not None  # noqa: S101  filled in with the specification
    scope = problem.view.spec.objective.scope
    precision = adam_precision(problem.device, scope)
    # Suspicion needs no fit: what one is for here are the columns beside it.
    many = MANY_WITH_INFLUENCE if problem.roster.n_validation else MANY
    bounded = problem.view.spec.task == "misalignment" and scope == "heads" and problem.roster.n_pairs >= many
    result = fit(
        problem.objective,
        problem.initial,
        problem.training_batches,
        FitSettings(
            epochs=min(fit_spec.epochs, _FEW_EPOCHS) if bounded else fit_spec.epochs,
            learning_rate=fit_spec.learning_rate,
            adam_share=1.0 if bounded else ADAM_SHARE[scope],
            adam_precision=precision,
        ),
        state=problem.notebook.state("fit"),
        on_state=problem.notebook.keep("fit"),
        on_epoch=lambda epoch, _: problem.progress(epoch),
    )
    checkpoints = {"checkpoints": torch.stack([flatten(weights) for weights in result.checkpoints])}
    output = FitOutput(
        checkpoints=put_tensors(task.blobs, task.blob_name("checkpoints.safetensors"), checkpoints),
        params=put_tensors(task.blobs, task.blob_name("params.safetensors"), result.params),
        epochs=result.epochs_done,
        objective=result.objective,
        gradient_norm=result.gradient_norm,
        decrement_bound=result.decrement_bound if problem.objective.l2 else None,
        stationary=result.stationary,
        bounded=bounded,
        adam_precision=precision,
        temperature=float(1 / problem.objective.scale_of(result.params)),
    )
    return Done(output, result.epochs_done)
