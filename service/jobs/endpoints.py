"""`/jobs`: submit, follow, cancel and delete jobs."""

import hashlib
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.bodies import MAX_FIELD_BYTES, is_json, read_body
from service.context import Service, ServiceDep
from service.datasets.creation import new_dataset, store_upload
from service.errors import header_docs, problem_docs
from service.idempotency import REPLAYED, IdempotencyKey, IdempotentRequest, idempotent_request
from service.jobs.estimates import EstimateOut, estimate_out
from service.jobs.schemas import JobOut, job_out, jobs_out
from service.jobs.submission import check, submit
from service.json_body import parse
from service.labels import FormSubmission, JobSubmission, Labels, WantedJobs, spec_of
from service.multipart import Form, staged_form
from service.pagination import LINKED, Cursor, Limit, Page, link_next, newest_first
from store import jobs, shards
from store.errors import InvalidError
from store.idempotency import Answer
from store.references import check_receiver
from store.specification import JobSpec

router = APIRouter(tags=["jobs"])

_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/JobSubmission"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["dataset", "spec"],
                    "properties": {
                        "dataset": {"type": "string", "format": "binary"},
                        "validation": {"type": "string", "format": "binary"},
                        "spec": {"$ref": "#/components/schemas/FormSubmission"},
                    },
                },
                "encoding": {"spec": {"contentType": "application/json"}},
            },
        },
    }
}

DryRun = Annotated[
    bool,
    Query(description="check the specification and say what the job would take; nothing is made, and no key is used"),
]
_UPLOAD_FIRST = (
    "a dry run stores nothing, so it cannot count the pairs of an upload: POST the file to /datasets, and name the "
    "dataset in a specification as application/json"
)

_POLLED = header_docs(ETag="of this state") | header_docs(False, Retry_After="seconds until it is worth asking again")

_SOON, _LATER, _YOUNG_SECONDS = 1, 5, 60


def _retry_after(job: JobOut) -> dict[str, str]:
    if job.status.ended:
        return {}
    young = (datetime.now(UTC) - job.created_at).total_seconds() < _YOUNG_SECONDS
    return {"Retry-After": str(_SOON if young else _LATER)}


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobOut,
    responses={
        200: {"model": EstimateOut, "description": "With `dry_run=true`: what it would take"},
        202: {
            "headers": header_docs(Location="the job", Retry_After="seconds until it is worth looking")
            | header_docs(False, Idempotency_Replayed=REPLAYED)
        },
        **problem_docs(408, 409, 413, 415, 507),
    },
    openapi_extra=_SUBMIT_BODY,
)
async def submit_job(
    request: Request, service: ServiceDep, dry_run: DryRun = False, idempotency_key: IdempotencyKey = None
) -> Response:
    """Promise a job: a JSON specification that names a dataset, or the dataset itself beside a `spec` in one form."""
    names_its_dataset = is_json(request, "send application/json or multipart/form-data")
    if dry_run:
        if not names_its_dataset:
            raise InvalidError("dry_run_of_upload", _UPLOAD_FIRST, "dry_run")
        return await run_in_threadpool(_dry_run, service, await read_body(request, MAX_FIELD_BYTES))
    async with idempotent_request(service, "POST /jobs", idempotency_key) as idempotent:
        if names_its_dataset:
            body = await read_body(request, MAX_FIELD_BYTES)
            return await run_in_threadpool(_submit_json, service, body, idempotent)
        async with staged_form(request, service, idempotent, files=["dataset", "validation"], fields=["spec"]) as form:
            return await run_in_threadpool(_submit_form, service, form, idempotent)


def _dry_run(service: Service, body: bytes) -> Response:
    spec = spec_of(parse(body, JobSubmission, ("body",)))
    check_receiver(spec.notify, service.settings)
    with service.database.transaction() as session:
        estimated = estimate_out(session, check(session, spec, service.settings))
    return Response(estimated.model_dump_json(), media_type="application/json")


def _promise(
    service: Service,
    session: Session,
    spec: JobSpec,
    labels: Labels,
    content: dict[str, Any],
    idempotent: IdempotentRequest,
) -> Response:
    job = job_out(session, submit(session, spec, labels, service.settings))
    headers = {"Location": f"/jobs/{job.id}", **_retry_after(job)}
    return idempotent.record_answer(session, content, Answer(202, headers, job.model_dump_json()))


def _submit_json(service: Service, body: bytes, idempotent: IdempotentRequest) -> Response:
    sent = parse(body, JobSubmission, ("body",))
    content = {"spec": sent.model_dump(mode="json", exclude_defaults=True)}  # the same after an upgrade, too
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    spec = spec_of(sent)
    check_receiver(spec.notify, service.settings)
    with service.database.transaction() as session:
        service.limits.room_for_job(session)
        answer = _promise(service, session, spec, sent, content, idempotent)
    service.bell.ring(shards.opened(session))
    return answer


def _submit_form(service: Service, form: Form, idempotent: IdempotentRequest) -> Response:
    for name, given in (("dataset", form.files), ("spec", form.fields)):
        if name not in given:
            raise InvalidError("missing_field", f"form field {name!r} is missing", name)
    settings = parse(form.fields["spec"], FormSubmission, ("body", "spec"))
    if "validation" in form.files and settings.validation is not None:
        raise InvalidError("validation_twice", "validation is given as a file and in the spec", "validation")
    sent = form.content() | {"spec": settings.model_dump(mode="json", exclude_defaults=True)}
    if (answered := idempotent.first_answer(sent)) is not None:
        return answered
    check_receiver(settings.notify, service.settings)
    with ExitStack() as cleanup:
        ids: dict[str, str] = {}
        stored_uploads = []
        for field, upload in form.files.items():
            stored = store_upload(service.blobs, upload, field)
            cleanup.enter_context(stored.forgotten_on_error(service.blobs))
            stored_uploads.append(stored)
            ids[field] = stored.dataset_id
        content: dict[str, Any] = settings.model_dump(exclude_unset=True)
        content["dataset"] = ids["dataset"]
        if "validation" in ids:
            content["validation"] = {"dataset": ids["validation"]}
        spec = spec_of(JobSubmission.model_validate(content))
        with service.database.transaction() as session:
            service.limits.room_for_job(session)
            size = sum(stored.upload.size_bytes for stored in stored_uploads)
            service.limits.room_for_datasets(session, len(stored_uploads), size)
            for stored in stored_uploads:
                new_dataset(session, stored)
            answer = _promise(service, session, spec, settings, sent, idempotent)
    service.bell.ring(shards.opened(session))
    return answer


@router.get("/jobs", responses=LINKED)
def list_jobs(
    request: Request,
    response: Response,
    service: ServiceDep,
    wanted: WantedJobs,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[JobOut]:
    """Jobs, newest first; `metadata.KEY=VALUE` lists those with this pair. They come without their long
    parts: `summary` has neither `scores` nor `queries`, and an inline `spec.model.architecture`, `spec.remove.keys` or
    `spec.queries.candidates` of more than 1,000 bytes is `{"abridged": true, "bytes": n}`. `GET /jobs/{id}` has all of
    it."""
    with service.database.transaction() as session:
        rows, following, total = newest_first(jobs, session, service.cursors, "jobs", limit, cursor, wanted)
        items = jobs_out(session, rows)
    link_next(request, response, following)
    return Page(items=items, next_cursor=following, total=total)


@router.get(
    "/jobs/{job_id}",
    response_model=JobOut,
    responses={
        200: {"headers": _POLLED},
        304: {"description": "Not changed since", "headers": _POLLED},
        **problem_docs(404),
    },
)
def get_job(
    job_id: str,
    response: Response,
    service: ServiceDep,
    if_none_match: Annotated[str | None, Header(description="`ETag` of an earlier answer")] = None,
) -> Any:
    """One job. While it is unfinished, `Retry-After` says when to ask again; `If-None-Match` saves the body."""
    with service.database.transaction() as session:
        job = job_out(session, jobs.get(session, job_id))
    etag = f'"{hashlib.sha256(job.model_dump_json().encode()).hexdigest()[:32]}"'
    response.headers["ETag"] = etag
    response.headers.update(_retry_after(job))
    known = if_none_match or ""
    if etag in (tag.strip().removeprefix("W/") for tag in known.split(",")) or known.strip() == "*":
        return Response(status_code=304, headers=dict(response.headers))
    return job


@router.post("/jobs/{job_id}/cancel", responses=problem_docs(404, 409))
def cancel_job(job_id: str, service: ServiceDep) -> JobOut:
    """Ask a job to end. Asking again changes nothing."""
    with service.database.transaction() as session:
        return job_out(session, jobs.cancel(session, job_id))


@router.delete("/jobs/{job_id}", status_code=204, responses=problem_docs(404))
def delete_job(job_id: str, service: ServiceDep) -> None:
    """Delete a job and its results; one that runs is cancelled first."""
    with service.database.transaction() as session:
        jobs.mark_deleted(session, job_id)
