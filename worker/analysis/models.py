"""From a specification to a model and the function that embeds its batches; and where this process computes, and how
exactly."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from billiard import current_process

from encoders import Checkpoint, Embedder, ModelRefused, ModelSpec, square_heads
from store import models
from store.catalogue import HUB_PREFIX, HubRules, check_architecture, check_size
from store.errors import InvalidError
from store.settings import Settings
from store.specification import JobSpec
from store.tables import Model
from worker.attempts.task import Task

if TYPE_CHECKING:
    from encoders import LoadedModel

_FIELDS = {"architecture": "model.architecture", "pretrained": "model.pretrained", "scope": "objective.scope"}
"""The field of a job for each part of a model that `encoders` may refuse."""


def device_of(settings: Settings, gpus: int | None = None) -> torch.device:
    """`ECIF_DEVICE`; where that names no GPU by number, the worker processes of a host take its GPUs in turn.

    gpus: how many this host has; counted unless given.
    """
    if settings.ecif_device not in ("auto", "cuda"):
        return torch.device(settings.ecif_device)
    count = torch.cuda.device_count() if gpus is None else gpus
    if count:
        return torch.device("cuda", place_in_pool() % count)
    return torch.device("cpu" if settings.ecif_device == "auto" else "cuda")


def memory_of(device: torch.device) -> int:
    """Bytes that this device has in all: of a GPU its own, else this machine's, or what its container may take."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    said = [file.read_text().strip() for file in limits if file.is_file()]
    return min([machine, *(int(limit) for limit in said if limit.isdigit())])


def place_in_pool() -> int:
    """Which of its host's worker processes this is, from 0; one that replaces another takes its place."""
    return int(getattr(current_process(), "index", 0))


def compute_in_float32() -> None:
    """Products of float32 are of float32, not of TF32, from now on in this process.

    PyTorch leaves convolutions to TF32, whose 10 bits are less than a solve's tolerance and would make a model's
    features depend on the device. What may be coarser asks for bfloat16 by itself (`adam_precision`).
    """
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]


def adam_precision(device: torch.device, scope: str) -> Literal["bfloat16", "float32"]:
    """How whole towers go through Adam's epochs on this device; heads on cached features are not worth rounding."""
    if scope == "heads" or device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


Source = tuple[ModelSpec, Checkpoint | None]
"""What `encoders.load_model` takes: a specification, and the weights where they are kept elsewhere."""


def job_model(task: Task, spec: JobSpec, device: torch.device) -> LoadedModel | None:
    """The model of a job; `None` for a dataset of embeddings.

    Raises:
        InvalidError: it cannot be built or its weights cannot be had; `param` names the field.
    """
    if spec.model is None:
        return None
    if spec.model.id is not None:
        return kept_model(task, row_of(task, spec.model.id), device)
    from encoders import load_model  # not before the first job that needs it

    named, checkpoint = named_source(task, spec)
    try:
        return load_model(named, device, checkpoint=checkpoint)
    except ModelRefused as refused:
        raise _invalid(refused) from refused


def named_source(task: Task, spec: JobSpec) -> Source:
    """Of the model that a job names by its architecture.

    Raises:
        InvalidError: it may not be had, or cannot be reached; `param` names the field.
    """
    assert spec.model is not None  # noqa: S101  a job on images has one
    architecture, pretrained = spec.model.architecture, spec.model.pretrained
    assert architecture is not None  # noqa: S101  a model is named one way or the other
    from encoders import hub

    rules = _hub_rules(task)
    checkpoint = None
    if isinstance(architecture, str) and architecture.startswith(HUB_PREFIX):
        repository = architecture.removeprefix(HUB_PREFIX)
        rules.check(architecture, "model.architecture")
        limits = hub.HubLimits(task.settings.ecif_hub_model_bytes, task.settings.ecif_hub_cache_bytes)
        try:
            architecture, checkpoint = hub.from_hub(repository, limits)
        except ModelRefused as refused:
            raise _invalid(refused) from refused
    if isinstance(architecture, dict):
        check_architecture(architecture)  # a repository's is a stranger's, and the row may be older than a rule
        check_size(architecture, task.settings.ecif_max_model_bytes)
        rules.check(architecture, "model.architecture")
    # The seed draws weights where none are given: elsewhere it would only load the same model anew.
    seed = spec.objective.seed if starts_from_nothing(spec) else 0
    return ModelSpec(architecture, pretrained, seed), checkpoint


def row_of(task: Task, model_id: str) -> Model:
    """The row of a model that a job names, which nobody deletes as long as the job works."""
    with task.database.transaction() as session:
        return models.get(session, model_id)


def kept_model(task: Task, model: Model, device: torch.device) -> LoadedModel:
    """A model that a user brought.

    Raises:
        InvalidError: its checkpoint does not fit its architecture; `param` names the field of `POST /models`.
    """
    named, checkpoint = kept_source(task, model)
    from encoders import load_model

    try:
        return load_model(named, device, checkpoint=checkpoint)
    except ModelRefused as refused:
        param = "file" if refused.code == "weights_mismatch" else "architecture"
        raise InvalidError(refused.code, refused.message, param) from refused


def kept_source(task: Task, model: Model) -> Source:
    """Of a model that a user brought.

    Raises:
        InvalidError: its architecture may not be had any more; `param` names the field of `POST /models`.
    """
    architecture = model.architecture
    assert architecture is not None  # noqa: S101  known once the file is there
    check_architecture(architecture, "architecture")
    check_size(architecture, task.settings.ecif_max_model_bytes, "architecture")
    rules = _hub_rules(task)
    if isinstance(architecture, dict):
        rules.check(architecture, "architecture")
    checkpoint = Checkpoint(model.digest or "", partial(task.blobs.local_path, models.blob_of(model)))
    return ModelSpec(architecture), checkpoint


def _invalid(refused: ModelRefused) -> InvalidError:
    """A refusal as the error of the job's field that names what was refused."""
    field = _FIELDS[refused.part]
    return InvalidError(refused.code, refused.message, f"{field}.{refused.path}" if refused.path else field)


def _hub_rules(task: Task) -> HubRules:
    """The rules of now. They hold for the token in this process, too."""
    from encoders import hub

    with task.database.transaction() as session:
        rules = HubRules.of(session, task.settings)
    hub.use_token(task.settings.ecif_hub_token or not rules.with_keys)
    return rules


def job_embedder(spec: JobSpec, model: LoadedModel | None, width: int | None, device: torch.device) -> Embedder:
    """What maps the encoded inputs of this job's scope to embeddings; its parameters are on `device`.

    Raises:
        InvalidError: the scope does not fit the model; `param` names the field.
    """
    if model is None:
        heads = square_heads(cast("int", width), cast("int", width))
        return Embedder(
            {name: weight.to(device) for name, weight in heads.parameters.items()}, heads.temperature, heads.embed
        )
    if spec.objective.scope == "lora":
        lora = spec.objective.lora
        assert lora is not None  # noqa: S101  filled in with the specification
        try:
            return model.lora(lora.rank, lora.alpha, spec.objective.seed)
        except ModelRefused as refused:
            raise _invalid(refused) from refused
    return model.heads() if spec.objective.scope == "heads" else model.full()


def starts_from_nothing(spec: JobSpec) -> bool:
    """Whether the model is drawn at random, so that it knows something only once it is fitted."""
    model = spec.model
    if model is None or model.id is not None or model.pretrained is not None:
        return False
    return not (isinstance(model.architecture, str) and model.architecture.startswith(HUB_PREFIX))
