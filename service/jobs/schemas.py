"""What a job looks like from outside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.datasets.schemas import ErrorOut
from store import shards
from store.phases import Phase, progress_unit
from store.specification import echoed
from store.states import JobStatus
from store.tables import Job


class ProgressOut(BaseModel):
    """How far the present phase is."""

    done: int
    total: int = Field(description="0 while it is not yet known")
    unit: str


class JobOut(BaseModel):
    """A job: what was asked, how far it is, how it ended."""

    id: str
    name: str | None
    metadata: dict[str, str]
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


def job_out(session: Session, job: Job) -> JobOut:
    """The outside form of a job's row, with the progress of its present phase."""
    return jobs_out(session, [job])[0]


def jobs_out(session: Session, rows: Sequence[Job]) -> list[JobOut]:
    """The same of each of them, with one query for the progress of all."""
    phases = [_phases(job) for job in rows]
    progress = shards.progress(session, {phase for of_one in phases for phase in of_one})
    made = ("progress", "error", "phase", "spec", "metadata")
    return [
        JobOut(
            **{name: getattr(job, name) for name in JobOut.model_fields if name not in made},
            metadata=job.user_metadata or {},
            phase=_phase(job),
            spec=echoed(job.spec),
            progress=_progress(job, [progress[phase] for phase in of_one if phase in progress]),
            error=ErrorOut(**job.error) if job.error else None,
        )
        for job, of_one in zip(rows, phases, strict=True)
    ]


def _phase(job: Job) -> str | None:
    # Before its own first phase a job waits for the ingest of what it names.
    return Phase.INGEST if job.phase is None and job.status == JobStatus.QUEUED else job.phase


def _phases(job: Job) -> list[tuple[str, str]]:
    """Whose shards say how far a job is: its own, or those of the datasets that it waits for."""
    phase = _phase(job)
    if phase is None:
        return []
    return [(owner, phase) for owner in (job.named_datasets() if phase == Phase.INGEST else [job.id])]


def _progress(job: Job, of_shards: Sequence[shards.Progress]) -> ProgressOut | None:
    phase = _phase(job)
    if phase is None:
        return ProgressOut(done=job.result_count, total=job.result_count, unit="pairs") if job.result_count else None
    return ProgressOut(
        done=sum(progress.done for progress in of_shards),
        total=sum(progress.total for progress in of_shards),
        unit=progress_unit(phase),
    )
