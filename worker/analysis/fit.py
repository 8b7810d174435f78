"""Fit: bring the trainable weights to a stationary point."""

from dataclasses import replace
from typing import Literal

import torch

from ecif import FitSettings, fit, flatten
from store.shards import Planned
from store.specification import JobSpec
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


def settings_of(
    spec: JobSpec, n_pairs: int, n_validation: int, precision: Literal["float32", "bfloat16"]
) -> tuple[FitSettings, bool]:
    """How far a job's fit goes, and whether it is a few passes by design."""
    assert spec.fit is not None  # noqa: S101  planned only where asked for
    assert spec.fit.epochs is not None  # noqa: S101  filled in with the specification
    scope = spec.objective.scope
    settings = FitSettings(
        epochs=spec.fit.epochs,
        learning_rate=spec.fit.learning_rate,
        adam_share=ADAM_SHARE[scope],
        adam_precision=precision,
    )
    # Suspicion needs no fit: what one is for here are the columns beside it.
    if spec.task != "misalignment" or scope != "heads":
        return settings, False
    if n_pairs >= (MANY_WITH_INFLUENCE if n_validation else MANY):
        return replace(settings, epochs=min(settings.epochs, _FEW_EPOCHS), adam_share=1.0), True
    return settings, False


def cut(planning: Planning) -> list[Planned]:
    """One shard, or none where the model is taken as it is."""
    fit_spec = planning.spec.fit
    return [Planned({}, fit_spec.epochs or 0)] if fit_spec else []


def run(task: Task) -> Done[Output]:
    """Fit the weights of a job."""
    return run_round(task, _fit)


def _fit(problem: Problem) -> Done[Output]:
    task, spec, roster = problem.task, problem.view.spec, problem.roster
    precision = adam_precision(problem.device, spec.objective.scope)
    settings, bounded = settings_of(spec, roster.n_pairs, roster.n_validation, precision)
    result = fit(
        problem.objective,
        problem.initial,
        problem.training_batches,
        settings,
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
