"""What a model looks like from outside."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.datasets.schemas import ErrorOut
from store.states import ModelStatus

Name = Annotated[str, Field(max_length=200)]
Architecture = Annotated[str, Field(min_length=1, max_length=200)] | dict[str, Any]


class ModelOut(BaseModel):
    """A checkpoint that a user brought."""

    id: str
    name: str | None
    source: str | None = Field(description="the URI or the job that its checkpoint is copied from; null if uploaded")
    architecture: str | dict[str, Any] | None = Field(
        description="a name that open_clip knows, `tiny`, or a configuration; null until a fetched file has said it"
    )
    digest: str | None = Field(description="of the file's bytes; null until they are there")
    status: ModelStatus
    size_bytes: int
    error: ErrorOut | None
    created_at: datetime


class ModelReference(BaseModel):
    """A model whose checkpoint is copied from elsewhere instead of uploaded."""

    model_config = ConfigDict(extra="forbid")

    uri: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="https://host/file, s3://bucket/key or gs://bucket/key: one safetensors file"
    )
    job: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="a `removal` that succeeded: the model that it edited"
    )
    name: Name | None = None
    architecture: Architecture | None = Field(
        default=None, description="needed unless the file's metadata hold an `open_clip_config`"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.uri is None) == (self.job is None):
            raise ValueError("a checkpoint is copied either from a `uri` or from a `job`")
        return self
