"""What a job looks like from outside."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from service.datasets.schemas import ErrorOut
from store.states import JobStatus


class ProgressOut(BaseModel):
    """How far the present phase is."""

    done: int
    total: int = Field(description="0 while it is not yet known")
    unit: str


class JobOut(BaseModel):
    """A job: what was asked, how far it is, how it ended."""

    id: str
    task: str
    status: JobStatus
    phase: str | None = Field(description="the present step; of a job that failed, the one that it failed in")
    progress: ProgressOut | None
    spec: dict[str, Any] = Field(description="the whole specification, defaults filled in")
    dataset_digest: str | None = Field(description="null until a dataset that is fetched from elsewhere is ready")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: ErrorOut | None
    summary: dict[str, Any] | None = Field(
        description="counts, distributions, warnings, what the solvers reached, seconds a phase"
    )
