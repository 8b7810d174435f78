"""`/jobs`: submit, follow, cancel and delete jobs."""

import hashlib
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.context import Service, ServiceDep
from service.datasets.keeping import keep_upload, new_dataset
from service.datasets.schemas import ErrorOut
from service.jobs.schemas import JobOut, ProgressOut
from service.jobs.submission import parse, submit
from service.listing import newest_first
from service.pages import Cursor, Limit, Page, link_next
from service.problem_docs import problems
from service.problems import MediaTypeError
from service.uploads import MAX_FIELD_BYTES, Form, read_body, read_form
from store import jobs, shards
from store.errors import InvalidError
from store.specification import JobSettings, JobSpec
from store.states import PROGRESS_UNITS, JobStatus, Phase
from store.tables import Job

router = APIRouter(tags=["jobs"])

_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["dataset", "spec"],
                    "properties": {
                        "dataset": {"type": "string", "format": "binary"},
                        "validation": {"type": "string", "format": "binary"},
                        "spec": {"$ref": "#/components/schemas/JobSettings"},
                    },
                },
                "encoding": {"spec": {"contentType": "application/json"}},
            },
        },
    }
}

_SOON, _LATER, _YOUNG_SECONDS = 1, 5, 60


def job_out(session: Session, job: Job) -> JobOut:
    """The outside form of a job's row, with the progress of its present phase."""
    return JobOut(
        **{name: getattr(job, name) for name in JobOut.model_fields if name not in ("progress", "error", "phase")},
        phase=_phase(job),
        progress=_progress(session, job),
        error=ErrorOut(**job.error) if job.error else None,
    )


def _phase(job: Job) -> str | None:
    # Before its own first phase a job waits for the ingest of what it names.
    return Phase.INGEST if job.phase is None and job.status == JobStatus.QUEUED else job.phase


def _progress(session: Session, job: Job) -> ProgressOut | None:
    phase = _phase(job)
    if phase is None:
        return ProgressOut(done=job.result_count, total=job.result_count, unit="pairs") if job.result_count else None
    owners: list[dict[str, str]] = [{"job_id": job.id}]
    if phase == Phase.INGEST:
        owners = [{"dataset_id": id_} for id_ in (job.dataset_id, job.validation_dataset_id) if id_]
    found = [shards.progress(session, phase, **owner) for owner in owners]
    return ProgressOut(
        done=sum(progress.done for progress in found),
        total=sum(progress.total for progress in found),
        unit=PROGRESS_UNITS[Phase(phase)],
    )


def _retry_after(job: JobOut, response: Response) -> None:
    if not job.status.ended:
        young = (datetime.now(UTC) - job.created_at).total_seconds() < _YOUNG_SECONDS
        response.headers["Retry-After"] = str(_SOON if young else _LATER)


@router.post(
    "/jobs", status_code=202, response_model=JobOut, responses=problems(400, 413, 415, 422), openapi_extra=_SUBMIT_BODY
)
async def submit_job(request: Request, response: Response, service: ServiceDep) -> JobOut:
    """Promise a job: a JSON specification that names a dataset, or the dataset itself beside a `spec` in one form."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        body = await read_body(request, MAX_FIELD_BYTES)
        job = await run_in_threadpool(_submit_json, service, body)
    elif media_type == "multipart/form-data":
        with service.blobs.staging() as folder:
            limit = service.settings.ecif_max_upload_bytes
            form = await read_form(request, folder, files=["dataset", "validation"], fields=["spec"], max_bytes=limit)
            job = await run_in_threadpool(_submit_form, service, form)
    else:
        raise MediaTypeError("unsupported_media_type", "send application/json or multipart/form-data")
    response.headers["Location"] = f"/jobs/{job.id}"
    _retry_after(job, response)
    return job


def _submit_json(service: Service, body: bytes) -> JobOut:
    spec: JobSpec = parse(body, JobSpec, ("body",))
    with service.database.transaction() as session:
        job = job_out(session, submit(session, spec))
    service.bell.ring()
    return job


def _submit_form(service: Service, form: Form) -> JobOut:
    for name, given in (("dataset", form.files), ("spec", form.fields)):
        if name not in given:
            raise InvalidError("missing_field", f"form field {name!r} is missing", name)
    settings: JobSettings = parse(form.fields["spec"], JobSettings, ("body", "spec"))
    if "validation" in form.files and settings.validation is not None:
        raise InvalidError("validation_twice", "validation is given as a file and in the spec", "validation")
    with ExitStack() as kept_or_forgotten:
        ids: dict[str, str] = {}
        kept_uploads = []
        for field, upload in form.files.items():
            kept = keep_upload(service.blobs, upload, field, None, None)
            kept_or_forgotten.enter_context(kept.forgotten_on_error(service.blobs))
            kept_uploads.append(kept)
            ids[field] = kept.dataset_id
        content: dict[str, Any] = settings.model_dump(exclude_unset=True)
        content["dataset"] = ids["dataset"]
        if "validation" in ids:
            content["validation"] = {"dataset": ids["validation"]}
        spec = JobSpec.model_validate(content)
        with service.database.transaction() as session:
            for kept in kept_uploads:
                new_dataset(session, kept)
            job = job_out(session, submit(session, spec))
    service.bell.ring(len(ids))
    return job


@router.get("/jobs", responses=problems(400, 422))
def list_jobs(
    request: Request, response: Response, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> Page[JobOut]:
    """Jobs, newest first."""
    with service.database.transaction() as session:
        found, following, total = newest_first(jobs, session, service.cursors, "jobs", limit, cursor)
        items = [job_out(session, job) for job in found]
    link_next(request, response, following)
    return Page(items=items, next_cursor=following, total=total)


@router.get(
    "/jobs/{job_id}", response_model=JobOut, responses={304: {"description": "Not changed since"}, **problems(404)}
)
def get_job(job_id: str, request: Request, response: Response, service: ServiceDep) -> Any:
    """One job. While it is unfinished, `Retry-After` says when to ask again; `If-None-Match` saves the body."""
    with service.database.transaction() as session:
        job = job_out(session, jobs.get(session, job_id))
    etag = f'"{hashlib.sha256(job.model_dump_json().encode()).hexdigest()[:32]}"'
    response.headers["ETag"] = etag
    _retry_after(job, response)
    asked = request.headers.get("if-none-match", "")
    if etag in (tag.strip().removeprefix("W/") for tag in asked.split(",")) or asked.strip() == "*":
        return Response(status_code=304, headers=dict(response.headers))
    return job


@router.post("/jobs/{job_id}/cancel", responses=problems(404, 409))
def cancel_job(job_id: str, service: ServiceDep) -> JobOut:
    """Ask a job to end. Asking again changes nothing."""
    with service.database.transaction() as session:
        return job_out(session, jobs.cancel(session, job_id))


@router.delete("/jobs/{job_id}", status_code=204, responses=problems(404))
def delete_job(job_id: str, service: ServiceDep) -> None:
    """Delete a job and its results; one that runs is cancelled first."""
    with service.database.transaction() as session:
        jobs.mark_deleted(session, job_id)
