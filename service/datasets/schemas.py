"""What a dataset and a pair look like from outside."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from store.states import DatasetStatus

MAX_TEMPLATE = 1000


class ErrorOut(BaseModel):
    """Why something ended."""

    code: str
    message: str
    param: str | None = None


class DatasetOut(BaseModel):
    """An uploaded dataset."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str | None
    source: str | None = Field(description="where its bytes were fetched from, if they were not uploaded")
    digest: str | None = Field(description="of the upload's bytes; null until they are fetched")
    format: str | None = Field(description="as asked for, or as found out by ingest")
    status: DatasetStatus
    pair_count: int | None = Field(description="usable pairs; null until ingested")
    rejected_count: int | None = Field(description="pairs turned away, each with its reason")
    warnings: list[str] = Field(default=[], description="what ingest noticed about the upload as a whole")
    summary: dict[str, Any] | None = Field(
        description="counts: rejections by reason, duplicates by kind, captions, pairs by label; null until ingested"
    )
    error: ErrorOut | None
    created_at: datetime


class DatasetReference(BaseModel):
    """A dataset that is fetched instead of uploaded."""

    model_config = ConfigDict(extra="forbid")

    uri: Annotated[str, Field(min_length=1)] = Field(
        description="https://host/file, s3://bucket/key or gs://bucket/key: one file in any format of uploads"
    )
    name: Annotated[str, Field(max_length=200)] | None = None
    format: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="found out where absent")
    caption_template: Annotated[str, Field(max_length=MAX_TEMPLATE, pattern=r"\{label\}")] | None = Field(
        default=None, description="captions of images in folders named by their class"
    )


class PairOut(BaseModel):
    """A pair of a dataset; a rejected one says why in `error`."""

    model_config = ConfigDict(from_attributes=True)

    key: str | None
    caption: str | None
    width: int | None = Field(description="pixels")
    height: int | None = Field(description="pixels")
    extra: dict[str, Any] | None = Field(description="every other column that came with the pair")
    error: str | None
    duplicate_of: str | None = Field(
        default=None, description="with `duplicate`: the key of the first pair that this one equals, or its own"
    )
