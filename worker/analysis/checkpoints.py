"""The checkpoints of a job: its model at points of its own training, which a user sent as models beside it.

TracIn and the margin are then of these, and not of points of the job's own fit (docs/decisions/0029-checkpoints.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecif.parameters import Params
from encoders import ModelRefused
from store.errors import InvalidError
from store.specification import JobSpec
from worker.analysis.models import Source, job_embedder, kept_model, kept_source, named_source, row_of
from worker.analysis.problem import Problem, Start, record_tables
from worker.attempts.task import Task

if TYPE_CHECKING:
    from encoders import LoadedModel

FIELD = "model.checkpoints"

_OF_INPUTS = ("interpolation", "resize_mode", "fill_color")
"""What of the preprocessing decides which pixels a model is given. Mean and deviation act inside the towers."""


def named_checkpoints(spec: JobSpec) -> tuple[str, ...]:
    """The ids of the models; none where the job names none."""
    return (spec.model.checkpoints if spec.model is not None else None) or ()


def check_alike(task: Task, spec: JobSpec) -> None:
    """Raise unless every checkpoint has the configuration of the job's model. No weights are read for it.

    Raises:
        InvalidError: naming the checkpoint, and where it differs first.
    """
    if not named_checkpoints(spec):
        return
    assert spec.model is not None  # noqa: S101  it names them
    if spec.model.id is not None:
        own = _configuration(kept_source(task, row_of(task, spec.model.id)), "model.id")
    else:
        own = _configuration(named_source(task, spec), "model.architecture")
    for checkpoint_id in named_checkpoints(spec):
        other = _configuration(kept_source(task, row_of(task, checkpoint_id)), FIELD)
        place = _first_difference(own, other)
        if place is not None:
            raise InvalidError(
                "other_architecture",
                f"checkpoint {checkpoint_id} is of another architecture than the model: {place} differs",
                FIELD,
            )


def _configuration(source: Source, param: str) -> dict[str, Any]:
    from encoders import describe

    try:
        described = describe(source[0])
    except ModelRefused as refused:
        raise InvalidError(refused.code, refused.message, param) from refused
    return {**described.config, "preprocess_cfg": {name: described.preprocess[name] for name in _OF_INPUTS}}


def _first_difference(one: Any, other: Any) -> str | None:
    """Where two configurations differ, with dots; `None` where they do not. A field that is null is as one that is not
    there."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        listed = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
        return None if listed[0] == listed[1] else ""
    for name in sorted({*one, *other}):
        place = _first_difference(one.get(name), other.get(name))
        if place is not None:
            return f"{name}.{place}" if place else name
    return None


def checkpoint_model(task: Task, checkpoint_id: str, device: torch.device) -> LoadedModel:
    """One of the checkpoints of a job, loaded.

    Raises:
        InvalidError: it cannot be loaded any more.
    """
    try:
        return kept_model(task, row_of(task, checkpoint_id), device)
    except InvalidError as error:
        raise InvalidError(error.code, f"checkpoint {checkpoint_id}: {error.message}", FIELD) from error


@dataclass(frozen=True)
class Point:
    """The trainable weights of a checkpoint, its scale s and the bias b of its logits. Of heads this is all that is
    needed beside features."""

    weights: Params
    scale: float
    bias: float

    def tensors(self, place: int) -> dict[str, Tensor]:
        """To be kept in a blob, beside those of the checkpoints at other places of the list."""
        logits = {"scale": self.scale, "bias": self.bias}
        own = {name: torch.tensor(number, dtype=torch.float64) for name, number in logits.items()} | self.weights
        return {f"checkpoint.{place}.{name}": tensor for name, tensor in own.items()}

    @classmethod
    def among(cls, tensors: dict[str, Tensor], place: int) -> Point | None:
        """What `tensors` has made; `None` where it is not among these."""
        start = f"checkpoint.{place}."
        own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        scale, bias = (own.pop(name, torch.zeros(())) for name in ("scale", "bias"))
        return cls(own, float(scale), float(bias)) if own else None


@contextmanager
def at_checkpoint(problem: Problem, checkpoint_id: str, known: Point | None = None) -> Iterator[Problem]:
    """The problem of a job at a checkpoint: its weights, its temperature and bias unless the job sets them, and, where
    heads are trained, its own features. Its files close with the block.

    known: of heads, from a phase before, so that the model need not be loaded.

    Raises:
        InvalidError: it was trained with another loss than the model.
    """
    spec, embed = problem.view.spec, problem.objective.embed
    if known is not None:
        # In the order that flat gradients have: a blob keeps none.
        weights = {name: known.weights[name].to(problem.device) for name in problem.initial}
        point = replace(known, weights=weights)
    else:
        model = checkpoint_model(problem.task, checkpoint_id, problem.device)
        embedder = job_embedder(spec, model, None, problem.device)
        start = Start.of(spec, embedder, problem.device)
        if start.loss is not problem.objective.loss:
            raise InvalidError(
                "other_loss",
                f"checkpoint {checkpoint_id} was trained with the {start.loss.name} loss, the model with the "
                f"{problem.objective.loss.name} loss: name one of them in objective.loss",
                FIELD,
            )
        point, embed = Point(start.weights, start.scale, start.bias), embedder
    objective = replace(problem.objective, embed=embed, scale=point.scale, bias=point.bias, prior=point.weights)
    with ExitStack() as files:
        tables = problem.tables
        if spec.objective.scope == "heads":
            tables = record_tables(problem.task, problem.view, files, checkpoint_id)
        yield replace(problem, objective=objective, initial=point.weights, params=point.weights, tables=tables)
