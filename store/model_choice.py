"""Which model a job encodes with, as its specification names it."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from store.catalogue import HUB_PREFIX, pretrained_tags
from store.strict import Strict

DEFAULT_ARCHITECTURE = "ViT-B-32"
DEFAULT_PRETRAINED = "laion2b_s34b_b79k"

ModelId = Annotated[str, Field(min_length=1, max_length=200)]


class Model(Strict):
    """An open_clip model by name, or one of `/models` by its id. `tiny` is a small architecture for trials on 32-pixel
    images."""

    id: ModelId | None = Field(default=None, description="of a model of `/models`, in place of the other fields")
    architecture: Annotated[str, Field(min_length=1, max_length=200)] | dict[str, Any] | None = Field(
        default=None,
        description="a name that open_clip knows, `tiny`, `hf-hub:organisation/repository` (with its own weights), or "
        "an open_clip model configuration as an object",
    )
    pretrained: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="an open_clip tag; null starts from random weights drawn from `objective.seed`"
    )
    checkpoints: Annotated[tuple[ModelId, ...], Field(min_length=2, max_length=10, fail_fast=True)] | None = Field(
        default=None,
        description="ids of models of `/models`: this model along its own training, for the methods `tracin` and "
        "`margin`, which are then of these and not of the fit",
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if (self.id is None) == (self.architecture is None):
            raise ValueError("a model is named either by `architecture` or by `id`")
        if self.id is not None and self.pretrained is not None:
            raise ValueError("a model named by `id` brings its own weights: leave `pretrained` out")
        seen: set[str] = set()
        for checkpoint in self.checkpoints or ():
            if checkpoint in seen:
                raise ValueError(f"`checkpoints` names {checkpoint} twice")
            seen.add(checkpoint)
        return self

    @model_serializer(mode="wrap")
    def _as_named(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {"architecture", "pretrained"} if self.id is not None else {"id"}
        if self.checkpoints is None:
            absent.add("checkpoints")
        return {name: value for name, value in fields(self).items() if name not in absent}


def _of_text(value: object) -> object:
    """A model that is named by text alone, as the command names it: `ARCHITECTURE`, `ARCHITECTURE:PRETRAINED`,
    `hf-hub:organisation/repository`, or an id of `/models`.

    Raises:
        ValueError: the architecture has pretrained weights, and which of them is not said. Random ones are not taken
            instead: nobody who names a model means these.
    """
    if not isinstance(value, str):
        return value
    if value.startswith("model_"):
        return {"id": value}
    if value.startswith(HUB_PREFIX):
        return {"architecture": value}
    architecture, _, pretrained = value.partition(":")
    if not pretrained and architecture == DEFAULT_ARCHITECTURE:
        pretrained = DEFAULT_PRETRAINED
    if not pretrained and (tags := pretrained_tags(architecture)):
        shown = ", ".join(f"{architecture}:{tag}" for tag in tags[:3]) + (", …" if len(tags) > 3 else "")
        raise ValueError(
            f"which weights of {architecture} is not said: write {shown}, or "
            f'{{"architecture": "{architecture}", "pretrained": null}} for random ones'
        )
    return {"architecture": architecture, "pretrained": pretrained or None}


NamedModel = Annotated[Model, BeforeValidator(_of_text, json_schema_input_type=Model | str)]
