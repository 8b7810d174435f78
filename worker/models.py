"""From a specification to a model and the function that embeds its batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from encoders import Checkpoint, Embedder, ModelRefused, ModelSpec, square_heads
from store import api_keys, models
from store.catalogue import HUB_PREFIX, check_architecture, check_size
from store.errors import InvalidError
from store.open_clip_config import hub_names
from store.specification import JobSpec
from store.tables import Model
from worker.task import Task

if TYPE_CHECKING:
    from encoders import LoadedModel

SMALLEST_TEMPERATURE = 0.01  # CLIP's own bound, s ≤ 100


def job_model(task: Task, spec: JobSpec, device: torch.device) -> LoadedModel | None:
    """The model of a job; `None` for a dataset of embeddings.

    Raises:
        InvalidError: it cannot be built or its weights cannot be had; `param` names the field.
    """
    if spec.model is None:
        return None
    if spec.model.id is not None:
        with task.database.transaction() as session:
            model = models.get(session, spec.model.id)
        return kept_model(task, model, device)
    architecture, pretrained = spec.model.architecture, spec.model.pretrained
    assert architecture is not None  # noqa: S101  a model is named one way or the other
    from encoders import hub, load_model  # not before the first job that needs it

    rules = _HubRules.of(task)
    try:
        checkpoint = None
        if isinstance(architecture, str) and architecture.startswith(HUB_PREFIX):
            repository = architecture.removeprefix(HUB_PREFIX)
            rules.check(repository, "model.architecture")
            limits = hub.HubLimits(task.settings.ecif_hub_model_bytes, task.settings.ecif_hub_cache_bytes)
            architecture, checkpoint = hub.from_hub(repository, limits)
        if isinstance(architecture, dict):
            check_architecture(architecture)  # a repository's is a stranger's, and the row may be older than a rule
            check_size(architecture, task.settings.ecif_max_model_bytes)
            rules.check_config(architecture, "model.architecture")
        # The seed draws weights where none are given: elsewhere it would only load the same model anew.
        seed = spec.objective.seed if starts_from_nothing(spec) else 0
        return load_model(ModelSpec(architecture, pretrained, seed), device, checkpoint=checkpoint)
    except ModelRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused


def kept_model(task: Task, model: Model, device: torch.device) -> LoadedModel:
    """A model that a user brought.

    Raises:
        InvalidError: its checkpoint does not fit its architecture; `param` names the field of `POST /models`.
    """
    architecture = model.architecture
    assert architecture is not None  # noqa: S101  known once the file is there
    check_architecture(architecture, "architecture")
    check_size(architecture, task.settings.ecif_max_model_bytes, "architecture")
    rules = _HubRules.of(task)
    if isinstance(architecture, dict):
        rules.check_config(architecture, "architecture")
    checkpoint = Checkpoint(model.digest or "", partial(task.blobs.local_path, models.blob_of(model)))
    from encoders import load_model

    try:
        return load_model(ModelSpec(architecture), device, checkpoint=checkpoint)
    except ModelRefused as refused:
        param = "file" if refused.code == "weights_mismatch" else "architecture"
        raise InvalidError(refused.code, refused.message, param) from refused


@dataclass(frozen=True)
class _HubRules:
    """Which repositories of the Hugging Face hub a job may make this worker fetch from."""

    allowed: list[str]
    with_keys: bool

    @classmethod
    def of(cls, task: Task) -> _HubRules:
        """The rules of now: the first key may just have been made. They hold for the token in this process, too."""
        from encoders import hub

        with task.database.transaction() as session:
            with_keys = api_keys.any_made(session)
        hub.use_token(task.settings.ecif_hub_token or not with_keys)
        return cls(task.settings.ecif_hub_repositories.split(), with_keys)

    def check(self, repository: str, param: str) -> None:
        """Raise InvalidError, naming the field, unless it may be fetched from."""
        if not self.allowed and not self.with_keys:
            return
        if repository not in self.allowed and repository.partition("/")[0] not in self.allowed:
            raise InvalidError(
                "repository_not_allowed",
                f"nothing is fetched from {repository} of the Hugging Face hub here (ECIF_HUB_REPOSITORIES)",
                param,
            )

    def check_config(self, config: dict[str, Any], param: str) -> None:
        """The same for the text tower and the tokenizer that a configuration names."""
        for field, repository in hub_names(config):
            self.check(repository, f"{param}.{field}")


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
            raise InvalidError(refused.code, refused.message, refused.param) from refused
    return model.heads() if spec.objective.scope == "heads" else model.full()


def starts_from_nothing(spec: JobSpec) -> bool:
    """Whether the model is drawn at random, so that it knows something only once it is fitted."""
    model = spec.model
    if model is None or model.id is not None or model.pretrained is not None:
        return False
    return not (isinstance(model.architecture, str) and model.architecture.startswith(HUB_PREFIX))
