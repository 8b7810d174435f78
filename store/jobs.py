"""Jobs: all SQL over their rows, and the only place where a job changes its state."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session, defer
from sqlalchemy.orm.attributes import set_committed_value

from store import deliveries, shards
from store.abridging import abridged, without
from store.errors import ConflictError, NotFoundError
from store.states import DatasetStatus, JobStatus, ModelStatus, Phase
from store.tables import Dataset, Job, Model, Result
from store.tenancy import tenant_of

BYTES_OF_A_RESULT = 500
"""Of a row of results with its indexes, about: no row is measured."""

_LONG_PARTS = (("model", "architecture"), ("remove", "keys"), ("queries", "candidates"))
_LONG_SUMMARIES = ("scores", "queries")
_UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING)


def create(
    session: Session,
    *,
    job_id: str,
    task: str,
    spec: dict[str, Any],
    code_version: str,
    dataset_id: str,
    validation_dataset_id: str | None,
    queries_dataset_id: str | None = None,
    dataset_digest: str | None,
    model_id: str | None = None,
) -> Job:
    """Promise a job. Its first phase opens at once, or when the datasets and the model that it names are ready."""
    job = Job(
        id=job_id,
        tenant=tenant_of(session),
        task=task,
        status=JobStatus.QUEUED,
        spec=spec,
        code_version=code_version,
        dataset_id=dataset_id,
        validation_dataset_id=validation_dataset_id,
        queries_dataset_id=queries_dataset_id,
        dataset_digest=dataset_digest,
        model_id=model_id,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    _start_if_ready(session, job)
    return job


def get(session: Session, job_id: str) -> Job:
    """One job.

    Raises:
        NotFoundError: there is none, or it was deleted.
    """
    return _found(session.scalar(_visible(job_id)), job_id)


def glance(session: Session, job_id: str) -> Job:
    """One job as a listing shows it: for reading only, its `spec` and `summary` are light.

    Raises:
        NotFoundError: there is none, or it was deleted.
    """
    return _found(next(iter(_light(session, _visible(job_id))), None), job_id)


def row_exists(session: Session, job_id: str) -> bool:
    """Whether there is a row, be it of a deleted one."""
    return session.get(Job, job_id) is not None


def lock(session: Session, job_id: str) -> Job | None:
    """The job's row, held for the rest of the transaction; deleted ones too."""
    return session.scalar(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    )


def page(session: Session, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[Job]:
    """Newest first, from just below `before`, each light as `glance` gives it."""
    query = select(Job).where(Job.deleted_at.is_(None))
    if before is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*before))
    return _light(session, query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit))


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Job).where(Job.deleted_at.is_(None))) or 0


def count_unfinished(session: Session) -> int:
    """Jobs that are still to end, deleted ones too."""
    return session.scalar(select(func.count()).select_from(Job).where(Job.finished_at.is_(None))) or 0


def stored_bytes(session: Session) -> int:
    """The size of all that jobs left in blobs, and of their results."""
    sizes = func.sum(Job.kept_bytes + Job.result_count * BYTES_OF_A_RESULT)
    return int(session.scalar(select(sizes).where(Job.deleted_at.is_(None))) or 0)


def unfinished_on(session: Session, dataset_id: str) -> Sequence[str]:
    """The jobs that still work on a dataset, oldest first."""
    return session.scalars(
        select(Job.id).where(_uses(dataset_id), Job.status.in_(_UNFINISHED)).order_by(Job.created_at, Job.id)
    ).all()


def works_on(dataset_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether an unfinished job works on the dataset of each row."""
    return exists(select(Job.id).where(_uses(dataset_id), Job.finished_at.is_(None)))


def unfinished_with(session: Session, model_id: str) -> Sequence[str]:
    """The jobs that still use a model, oldest first."""
    return session.scalars(
        select(Job.id).where(Job.model_id == model_id, Job.status.in_(_UNFINISHED)).order_by(Job.created_at, Job.id)
    ).all()


def start_waiting(session: Session, *, dataset_id: str | None = None, model_id: str | None = None) -> None:
    """Open the first phase of every queued job that waited for this dataset or model and now has all it needs."""
    for job in session.scalars(_waiting(dataset_id, model_id)):
        _start_if_ready(session, job)


def fail_waiting(
    session: Session, error: dict[str, Any], *, dataset_id: str | None = None, model_id: str | None = None
) -> None:
    """End every queued job that waited for a dataset or a model that failed."""
    for job in session.scalars(_waiting(dataset_id, model_id)):
        if model_id is not None:
            failed, param = f"model {model_id}", "model.id"  # the fields of its own error are not the job's
        else:
            failed, param = f"dataset {dataset_id}", "dataset" if job.dataset_id == dataset_id else "validation.dataset"
            param = error.get("param") or param
        fail(session, job, {"code": error["code"], "message": f"{failed} failed: {error['message']}", "param": param})


def started(session: Session, job: Job) -> None:
    """A worker has taken up the job."""
    if job.status == JobStatus.QUEUED:
        job.status = JobStatus.RUNNING
        job.started_at = func.now()
        session.flush()


def open_phase(session: Session, job: Job, phase: Phase, planned: Sequence[shards.Planned]) -> None:
    """Go on to a phase and queue its shards."""
    job.phase = phase
    shards.open_phase(session, phase, planned, job_id=job.id)
    session.flush()


def succeed(session: Session, job: Job, summary: dict[str, Any]) -> None:
    job.summary = summary
    _end(session, job, JobStatus.SUCCEEDED)


def fail(session: Session, job: Job, error: dict[str, Any]) -> None:
    """End a job with a reason; what still runs for it loses its lease."""
    if JobStatus(job.status).ended:
        return
    if job.status == JobStatus.CANCELLING:
        finish_cancel(session, job)
        return
    job.error = error
    _end(session, job, JobStatus.FAILED)
    shards.drop_open(session, job_id=job.id)


def cancel(session: Session, job_id: str) -> Job:
    """Ask a job to end. Asking twice, or after it was cancelled, changes nothing.

    Raises:
        NotFoundError: there is none.
        ConflictError: it ended otherwise before.
    """
    job = lock(session, job_id)
    if job is None or job.deleted_at is not None:
        raise _no_job(job_id)
    if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise ConflictError("job_ended", f"job {job_id} has {job.status} already")
    if job.status != JobStatus.CANCELLED:
        _ask_to_end(session, job)
    return job


def finish_cancel(session: Session, job: Job) -> None:
    """Turn `cancelling` into `cancelled` once no shard of the job runs."""
    if job.status == JobStatus.CANCELLING and not shards.any_running(session, job_id=job.id):
        _end(session, job, JobStatus.CANCELLED)


def cancelling(session: Session) -> Sequence[str]:
    """The jobs on their way to `cancelled`."""
    return session.scalars(select(Job.id).where(Job.status == JobStatus.CANCELLING)).all()


def mark_deleted(session: Session, job_id: str) -> None:
    """Make it invisible now, and end it if it runs; the sweeper purges what it holds.

    Raises:
        NotFoundError: there is none.
    """
    job = lock(session, job_id)
    if job is None or job.deleted_at is not None:
        raise _no_job(job_id)
    job.deleted_at = func.now()
    deliveries.drop(session, job_id)
    if not JobStatus(job.status).ended:
        _ask_to_end(session, job)
    session.flush()


def to_purge(session: Session) -> str | None:
    """A deleted job that has ended and whose rows are still there, locked for this transaction."""
    return session.scalar(
        select(Job.id)
        .where(Job.deleted_at.is_not(None), Job.finished_at.is_not(None))
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def purge(session: Session, job_id: str, rows: int) -> bool:
    """Delete up to `rows` results of a deleted job; true when nothing of it is left."""
    mine = Result.job == select(Job.number).where(Job.id == job_id).scalar_subquery()
    doomed = select(Result.rank).where(mine).limit(rows)
    gone = session.execute(delete(Result).where(mine, Result.rank.in_(doomed)))
    if gone.rowcount == rows:  # type: ignore[attr-defined]
        return False
    shards.purge(session, job_id=job_id)
    session.execute(delete(Job).where(Job.id == job_id))
    return True


def _visible(job_id: str) -> Select[Job]:
    return select(Job).where(Job.id == job_id, Job.deleted_at.is_(None))


def _light(session: Session, query: Select[Job]) -> list[Job]:
    """Jobs without what may be a megabyte each: the long parts of the specification are abridged, and of the summary
    the distributions of the scores and the list of queries are left out."""
    spec = abridged(Job.spec, *_LONG_PARTS)
    summary = without(Job.summary, *_LONG_SUMMARIES)
    query = query.options(defer(Job.spec), defer(Job.summary), defer(Job.outputs))
    found = []
    for job, light_spec, light_summary in session.execute(query.add_columns(spec, summary)):
        set_committed_value(job, "spec", light_spec)
        set_committed_value(job, "summary", light_summary)
        found.append(job)
    return found


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise _no_job(job_id)
    return job


def _no_job(job_id: str) -> NotFoundError:
    return NotFoundError("job_not_found", f"there is no job {job_id!r}")


def _uses(dataset_id: str | InstrumentedAttribute[str]) -> Any:
    return or_(
        Job.dataset_id == dataset_id, Job.validation_dataset_id == dataset_id, Job.queries_dataset_id == dataset_id
    )


def _waiting(dataset_id: str | None, model_id: str | None) -> Select[Job]:
    named = Job.model_id == model_id if dataset_id is None else _uses(dataset_id)
    return (
        select(Job)
        .where(named, Job.status == JobStatus.QUEUED, Job.phase.is_(None))
        .order_by(Job.created_at, Job.id)
        .with_for_update()
    )


def _start_if_ready(session: Session, job: Job) -> None:
    needed = set(job.named_datasets())
    # Locked in share mode: a dataset that becomes ready meanwhile does so before or after, never in between.
    ready = session.scalars(
        select(Dataset.status).where(Dataset.id.in_(needed)).order_by(Dataset.id).with_for_update(read=True)
    ).all()
    if job.model_id is not None:
        status = session.scalar(select(Model.status).where(Model.id == job.model_id).with_for_update(read=True))
        if status != ModelStatus.READY:
            return
    if len(ready) == len(needed) and all(status == DatasetStatus.READY for status in ready):
        job.dataset_digest = session.scalar(select(Dataset.digest).where(Dataset.id == job.dataset_id))
        open_phase(session, job, Phase.PLAN, [shards.Planned({})])


def _ask_to_end(session: Session, job: Job) -> None:
    job.status = JobStatus.CANCELLING
    session.flush()
    shards.drop_open(session, job_id=job.id, running=False)
    finish_cancel(session, job)


def _end(session: Session, job: Job, status: JobStatus) -> None:
    job.status = status
    if status is JobStatus.SUCCEEDED:
        job.phase = None  # the other ends keep it: it says how far the job came
    job.finished_at = func.now()
    session.flush()
    session.refresh(job)
    deliveries.announce(session, job)


def set_spec(session: Session, job_id: str, spec: dict[str, Any]) -> None:
    """Freeze the defaults that depend on what the dataset turned out to be."""
    session.execute(update(Job).where(Job.id == job_id).values(spec=spec))
