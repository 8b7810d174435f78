"""What a dataset and a pair look like from outside."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from store.idempotency import Answer
from store.references import shown
from store.states import DatasetStatus
from store.tables import Dataset

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
    metadata: dict[str, str]
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


_MADE = ("metadata", "source", "warnings", "error")


def dataset_out(dataset: Dataset) -> DatasetOut:
    """The outside form of a dataset's row."""
    return DatasetOut(
        **{name: getattr(dataset, name) for name in DatasetOut.model_fields if name not in _MADE},
        metadata=dataset.user_metadata or {},
        source=shown(dataset.source) if dataset.source else None,
        warnings=(dataset.warnings or {}).get("messages", []),
        error=ErrorOut(**dataset.error) if dataset.error else None,
    )


def created(dataset: Dataset) -> Answer:
    """The answer to whoever made it."""
    out = dataset_out(dataset)
    return Answer(201, {"Location": f"/datasets/{out.id}"}, out.model_dump_json())


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
