"""Jobs: all SQL over their rows, and the only place where a job changes its state."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, func, literal, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, defer
from sqlalchemy.orm.attributes import set_committed_value

from store import deliveries, marks, results, shards
from store.database import tenant_of
from store.errors import ConflictError
from store.nouns import Before, Noun, Wanted, abridged, without
from store.phases import Owner, OwnerKind, Phase
from store.specification import version_of
from store.states import DatasetStatus, JobStatus, ModelStatus
from store.tables import Dataset, Job, Model

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
    checkpoint_ids: Sequence[str] | None = None,
    deadline: float | None = None,
    name: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Job:
    """Promise a job, to end within `deadline` seconds if that is given. Its first phase opens at once, or when the
    datasets and the models that it names are ready. The caller holds their rows."""
    job = Job(
        id=job_id,
        tenant=tenant_of(session),
        name=name,
        user_metadata=metadata or None,
        task=task,
        status=JobStatus.QUEUED,
        spec=spec,
        spec_version=version_of(spec),
        deadline_at=None if deadline is None else func.now() + timedelta(seconds=deadline),
        code_version=code_version,
        dataset_id=dataset_id,
        validation_dataset_id=validation_dataset_id,
        queries_dataset_id=queries_dataset_id,
        dataset_digest=dataset_digest,
        model_id=model_id,
        checkpoint_ids=None if checkpoint_ids is None else list(checkpoint_ids),
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    _begin(session, job)
    return job


_JOBS = Noun(Job, "job")
find, get, exists, lock, count = _JOBS.find, _JOBS.get, _JOBS.exists, _JOBS.lock, _JOBS.count
find_including_deleted, get_including_deleted = _JOBS.find_including_deleted, _JOBS.get_including_deleted


def glance(session: Session, job_id: str) -> Job:
    """One job as a listing shows it: for reading only, its `spec` and `summary` are light.

    Raises:
        NotFoundError: there is none, or it was deleted.
    """
    job = next(iter(_light(session, select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)))), None)
    if job is None:
        raise _JOBS.missing(job_id)
    return job


def page(session: Session, wanted: Wanted, *, limit: int, before: Before) -> Sequence[Job]:
    """Newest first, from just below `before`, each light as `glance` gives it."""
    return _light(session, _JOBS.page(wanted, limit=limit, before=before))


@dataclass(frozen=True)
class Finished:
    """What a job that has succeeded says of its time: its specification without its long lists, and of its summary the
    counts, the phases and what was encoded. width: of its embeddings."""

    spec: dict[str, Any]
    counts: dict[str, Any]
    phases: list[dict[str, Any]]
    encoding: dict[str, Any] | None
    result_count: int
    width: int | None


_DECIDING = ("task", "model", "objective", "fit", "influence", "methods", "verify")


def finished(session: Session, most: int) -> list[Finished]:
    """The jobs that succeeded last, newest first."""
    spec = (Job.spec[name] for name in _DECIDING)
    rows = session.execute(
        select(Job.summary["counts"], Job.summary["phases"], Job.summary["encoding"], Job.result_count, Dataset.width)
        .add_columns(*spec)
        .join(Dataset, Dataset.id == Job.dataset_id)
        .where(Job.status == JobStatus.SUCCEEDED, Job.deleted_at.is_(None))
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(most)
    )
    return [
        Finished(dict(zip(_DECIDING, of_spec, strict=True)), counts, phases, encoding, result_count, width)
        for counts, phases, encoding, result_count, width, *of_spec in rows
    ]


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
    return select(Job.id).where(_uses(dataset_id), Job.finished_at.is_(None)).exists()


def unfinished_with(session: Session, model_id: str) -> Sequence[str]:
    """The jobs that still use a model, oldest first."""
    return session.scalars(
        select(Job.id).where(_works_with(model_id), Job.status.in_(_UNFINISHED)).order_by(Job.created_at, Job.id)
    ).all()


def not_begun(
    session: Session, most: int, *, dataset_id: str | None = None, model_id: str | None = None
) -> Sequence[str]:
    """Queued jobs whose datasets and models have all ended, well or not, though the jobs have not begun: of one dataset
    or model, or any. A few at a time, oldest first."""
    waiting = select(Job.id).where(Job.status == JobStatus.QUEUED, Job.phase.is_(None))
    if dataset_id is not None:
        waiting = waiting.where(_uses(dataset_id))
    if model_id is not None:
        waiting = waiting.where(_works_with(model_id))
    named = Dataset.id.in_([Job.dataset_id, Job.validation_dataset_id, Job.queries_dataset_id])
    ingesting = select(Dataset.id).where(named, Dataset.status == DatasetStatus.INGESTING).exists()
    of_job = or_(Model.id == Job.model_id, Model.id == any_(Job.checkpoint_ids))
    checking = select(Model.id).where(of_job, Model.status == ModelStatus.CHECKING).exists()
    return session.scalars(waiting.where(~ingesting, ~checking).order_by(Job.created_at, Job.id).limit(most)).all()


def begin(session: Session, job_id: str) -> None:
    """Open the first phase of a job that has not begun, if all that it names is ready; end it if something failed.

    A transaction for each job: it holds the job's row and no row of a dataset or model, whose ends do not change, so
    that two of them that end together do not wait for each other.
    """
    job = lock(session, job_id)
    if job is not None and job.status == JobStatus.QUEUED and job.phase is None:
        _begin(session, job)


def started(session: Session, job_id: str) -> None:
    """A worker has taken up the job. Its row is touched the first time only."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        .values(status=JobStatus.RUNNING, started_at=func.now())
    )


def open_phase(session: Session, job: Job, phase: Phase, planned: Sequence[shards.Planned], *, round_: int = 0) -> None:
    """Go on to a phase, or to another round of it, and queue its shards."""
    job.phase = phase
    session.flush()  # the shards take over the version of its specification
    shards.open_phase(session, owner_of(job), phase, planned, round_=round_)


def succeed(
    session: Session, job: Job, summary: dict[str, Any], *, result_count: int, flagged_count: int | None
) -> None:
    job.summary, job.result_count, job.flagged_count = summary, result_count, flagged_count
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
    shards.drop_open(session, owner_of(job))


def cancel(session: Session, job_id: str) -> Job:
    """Ask a job to end. Asking twice, or after it was cancelled, changes nothing.

    Raises:
        NotFoundError: there is none.
        ConflictError: it ended otherwise before.
    """
    job = _JOBS.lock_visible(session, job_id)
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
    job = _JOBS.lock_visible(session, job_id)
    job.deleted_at = func.now()
    deliveries.drop(session, job_id)
    if not JobStatus(job.status).ended:
        _ask_to_end(session, job)
    session.flush()


def overdue(session: Session) -> Sequence[str]:
    """The unfinished jobs whose deadline has passed."""
    return session.scalars(
        select(Job.id).where(Job.deadline_at < func.now(), Job.finished_at.is_(None)).order_by(Job.deadline_at)
    ).all()


def miss_deadline(session: Session, job_id: str) -> None:
    """End a job that has not kept its deadline."""
    job = lock(session, job_id)
    if job is not None:
        seconds = job.spec.get("deadline")
        message = f"the job did not end within its deadline of {seconds:,.10g} s"
        fail(session, job, {"code": "deadline", "message": message, "param": "deadline"})


def delete_expired(session: Session, most: int) -> int:
    """Delete the jobs whose `ttl` is over and of whose end everybody is told, up to `most`; return how many."""
    ids = session.scalars(
        select(Job.id)
        .where(Job.expires_at < func.now(), Job.deleted_at.is_(None), ~deliveries.is_waiting_for(Job.id))
        .order_by(Job.expires_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    ).all()
    for job_id in ids:
        mark_deleted(session, job_id)
    return len(ids)


def to_purge(session: Session) -> Job | None:
    """A deleted job that has ended and whose rows are still there, locked for this transaction."""
    return _JOBS.to_purge(session, Job.finished_at.is_not(None))


def purge(session: Session, job: Job, rows: int) -> bool:
    """Delete up to `rows` results of a deleted job; true when nothing of it is left."""
    if not (results.purge(session, job, rows) and shards.purge(session, owner_of(job), rows)):
        return False
    marks.purge(session, job.number)
    session.delete(job)
    return True


def owner_of(job: Job) -> Owner:
    """The job as the owner of its shards."""
    return Owner(OwnerKind.JOB, job.id)


def _light(session: Session, query: Select[Job]) -> list[Job]:
    """Jobs without what may be a megabyte each: the long parts of the specification are abridged, and of the summary
    the distributions of the scores and the list of queries are left out."""
    spec = abridged(Job.spec, *_LONG_PARTS)
    summary = without(Job.summary, *_LONG_SUMMARIES)
    query = query.options(defer(Job.spec), defer(Job.summary))
    jobs = []
    for job, light_spec, light_summary in session.execute(query.add_columns(spec, summary)):
        set_committed_value(job, "spec", light_spec)
        set_committed_value(job, "summary", light_summary)
        jobs.append(job)
    return jobs


def _uses(dataset_id: str | InstrumentedAttribute[str]) -> Any:
    return or_(
        Job.dataset_id == dataset_id, Job.validation_dataset_id == dataset_id, Job.queries_dataset_id == dataset_id
    )


def _works_with(model_id: str) -> ColumnElement[bool]:
    return or_(Job.model_id == model_id, literal(model_id) == any_(Job.checkpoint_ids))


def _begin(session: Session, job: Job) -> None:
    needed = set(job.named_datasets())
    # A row that is being changed by another shows what it was: whoever changes it looks for the job afterwards.
    of_now = select(Dataset).where(Dataset.id.in_(needed)).order_by(Dataset.id)
    named = session.scalars(of_now.execution_options(populate_existing=True)).all()
    models = [model for model in (session.get(Model, id_) for id_ in job.named_models()) if model is not None]
    for model in models:
        if model.status == ModelStatus.FAILED:
            # The fields of the model's own error are not the job's.
            param = "model.id" if model.id == job.model_id else "model.checkpoints"
            fail(session, job, _because(f"model {model.id}", model.error, param))
            return
    for dataset in named:
        if dataset.status == DatasetStatus.FAILED:
            param = "dataset" if dataset.id == job.dataset_id else "validation.dataset"
            error = dataset.error or {}
            fail(session, job, _because(f"dataset {dataset.id}", error, error.get("param") or param))
            return
    if any(model.status != ModelStatus.READY for model in models):
        return
    if len(named) == len(needed) and all(dataset.status == DatasetStatus.READY for dataset in named):
        job.dataset_digest = session.scalar(select(Dataset.digest).where(Dataset.id == job.dataset_id))
        open_phase(session, job, Phase.PLAN, [shards.Planned({})])


def _because(what: str, error: dict[str, Any] | None, param: str) -> dict[str, Any]:
    error = error or {"code": "failed", "message": "it failed"}
    return {"code": error["code"], "message": f"{what} failed: {error['message']}", "param": param}


def _ask_to_end(session: Session, job: Job) -> None:
    job.status = JobStatus.CANCELLING
    session.flush()
    shards.drop_open(session, owner_of(job), running=False)
    finish_cancel(session, job)


def _end(session: Session, job: Job, status: JobStatus) -> None:
    job.status = status
    if status is not JobStatus.SUCCEEDED:
        job.kept_bytes = shards.all_kept_bytes(session, job.id)  # those of the phase that it did not finish, too
    if status is JobStatus.SUCCEEDED:
        job.phase = None  # the other ends keep it: it says how far the job came
    job.finished_at = func.now()
    ttl = job.spec.get("ttl")
    if ttl is not None:
        job.expires_at = func.now() + timedelta(seconds=ttl)
    session.flush()
    session.refresh(job)
    deliveries.announce(session, job)


def set_spec(session: Session, job_id: str, spec: dict[str, Any]) -> None:
    """Freeze the defaults that depend on what the dataset turned out to be."""
    values = {"spec": spec, "spec_version": version_of(spec)}
    session.execute(update(Job).where(Job.id == job_id).values(values))


def keep_checkpoint(session: Session, job_id: str, blob: str) -> None:
    """Record where the edited model of a removal lies."""
    session.execute(update(Job).where(Job.id == job_id).values(checkpoint_blob=blob))


def checkpoint_blob(session: Session, job_id: str) -> str | None:
    """Where the edited model of a removal lies; nothing where the job is gone, or left none."""
    return session.scalar(select(Job.checkpoint_blob).where(Job.id == job_id))
