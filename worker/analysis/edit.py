"""Edit: take pairs out of a fitted model without retraining it, and say what that did.

θ̂_{−R} ≈ θ̂ + H⁻¹∇(Σ_R Pos + Neg_R) (`docs/design.md`, 9). The number of pairs, the batches and the prior stay as
they were, in the edit as in the refit that verifies it.
"""

import json
import math
from collections.abc import Iterator

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import Batch, FitSettings, fit, flatten, unflatten
from ecif.objective import LOGIT_BIAS, LOGIT_SCALE
from ecif.parameters import Params
from encoders import ModelRefused
from store import jobs
from store.checkpoint_file import CONFIG_KEY
from store.shards import Planned
from store.summaries import EditedLoss, Refit, Removal
from worker.analysis.curvatures import directions
from worker.analysis.fit import ADAM_SHARE
from worker.analysis.models import job_model
from worker.analysis.problem import Problem, open_problem
from worker.analysis.roster import get_removed
from worker.analysis.tensors import put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import EditOutput
from worker.pipeline import Planning

_REFIT_EPOCHS = 500


def cut(planning: Planning) -> list[Planned]:
    """One shard, for removals."""
    spec = planning.spec
    return [Planned({}, _REFIT_EPOCHS if spec.verify else 0)] if spec.task == "removal" else []


def run(task: Task) -> Done[EditOutput]:
    """Make the edited checkpoint of a job, and the figures that tell what it is worth."""
    with open_problem(task) as problem:
        step = directions(problem)["edit"][0]
        before = flatten(problem.params).double().cpu()
        after = unflatten((before + step.cpu()).to(flatten(problem.params)), problem.params)
        report: Removal = {
            "removed": problem.view.plan.removed,
            "step_norm": float(step.norm()),
            "relative_step_norm": float(step.norm() / before.norm()),
            "validation_loss": _validation(problem, step, after),
            "verified": _verified(problem, step) if problem.view.spec.verify else None,
        }
        checkpoint = _checkpoint(problem, after)
        output = EditOutput(checkpoint, report)

    def write(session: Session) -> None:
        jobs.keep_checkpoint(session, problem.view.id, checkpoint)

    return Done(output, _REFIT_EPOCHS if problem.view.spec.verify else 0, write)


def _validation(problem: Problem, step: Tensor, after: Params) -> EditedLoss | None:
    """The validation loss before, as influence predicts it (∇L_val·Δθ), and of the edited model itself."""
    n = problem.roster.n_validation
    if not n:
        return None
    before, gradient = problem.objective.validation_value_and_gradient(problem.params, problem.validation_batches(), n)
    edited, _ = problem.objective.validation_value_and_gradient(after, problem.validation_batches(), n)
    return {"before": before, "predicted_change": float(gradient.cpu() @ step.cpu()), "edited": edited}


def _verified(problem: Problem, step: Tensor) -> Refit:
    """A real refit without the removed pairs, started where the model stands, and how far the edit is from it."""
    removed = get_removed(problem.task, problem.view.plan)

    def without() -> Iterator[Batch]:
        for partition in range(len(problem.roster.partitions)):
            for places in problem.roster.batches(partition):
                problem.task.lease.check()
                staying = places[~removed[places]]
                if len(staying):
                    yield problem.batch(staying)

    def on_epoch(epoch: int, _: Params) -> None:
        problem.task.lease.progress(epoch)

    share = ADAM_SHARE[problem.view.spec.objective.scope]
    settings = FitSettings(epochs=_REFIT_EPOCHS, adam_share=0.0 if share == "auto" else share)
    result = fit(problem.objective, problem.params, without, settings, on_epoch=on_epoch)
    moved = (flatten(result.params).double() - flatten(problem.params).double()).cpu()
    edit = step.double().cpu()
    report: Refit = {
        "stationary": result.stationary,
        "epochs": result.epochs_done,
        "step_norm": float(moved.norm()),
        "cosine_of_steps": float(torch.nn.functional.cosine_similarity(moved, edit, dim=0)),
        "relative_gap": float((moved - edit).norm() / moved.norm()) if float(moved.norm()) else 0.0,
    }
    if problem.roster.n_validation:
        value, _ = problem.objective.validation_value_and_gradient(
            result.params, problem.validation_batches(), problem.roster.n_validation
        )
        report["validation_loss"] = value
    return report


def _checkpoint(problem: Problem, edited: Params) -> str:
    """The whole open_clip state dict; for embeddings, and heads that no architecture has, the heads alone."""
    task, spec = problem.task, problem.view.spec
    model = job_model(task, spec, problem.device)
    tensors: dict[str, Tensor] = dict(edited)
    if LOGIT_SCALE in tensors:  # open_clip caps it in training only
        tensors[LOGIT_SCALE] = tensors[LOGIT_SCALE].clamp(max=math.log(problem.objective.loss.largest_scale))
    metadata = None
    if model is not None:
        try:
            alpha = {"lora_alpha": spec.objective.lora.alpha} if spec.objective.lora else {}
            tensors = model.state_dict_with(tensors, spec.objective.scope, **alpha)
            # What open_clip's own file beside the weights would say: posted to /models, the checkpoint explains itself.
            bias = {"init_logit_bias": float(edited[LOGIT_BIAS])} if LOGIT_BIAS in edited else {}
            config = {"model_cfg": model.config | bias, "preprocess_cfg": model.preprocess_config}
            metadata = {CONFIG_KEY: json.dumps(config)}
        except ModelRefused:  # a tower without a linear head got a square one, which open_clip has no place for
            whole = (LOGIT_SCALE, LOGIT_BIAS)
            tensors = {name if name in whole else f"heads.{name}": weight for name, weight in tensors.items()}
    return put_tensors(task.blobs, task.blob_name("checkpoint.safetensors"), tensors, metadata)
