"""`/models`: bring, look at and delete models."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.bodies import MAX_FIELD_BYTES, is_json, read_body
from service.context import Service, ServiceDep
from service.datasets.schemas import ErrorOut
from service.errors import header_docs, problem_docs
from service.idempotency import REPLAYED, IdempotencyKey, IdempotentRequest, idempotent_request
from service.json_body import parse
from service.limits import UNLIMITED
from service.multipart import Form, staged_form
from service.pagination import LINKED, Cursor, Limit, Page, link_next, newest_first
from store import blob_owners, jobs, models, shards
from store.catalogue import check_architecture, check_size
from store.checkpoint_file import architecture_of
from store.database import storable_text
from store.errors import InvalidError, NotFoundError
from store.idempotency import Answer
from store.nouns import new_id
from store.references import check_reference, filename_of, shown
from store.states import JobStatus, ModelStatus
from store.tables import Model

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


router = APIRouter(tags=["models"])

_MOST_NAME = 200
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "weights as .safetensors"},
                        "architecture": {
                            "type": "string",
                            "description": "a name that open_clip knows, `tiny`, or an open_clip configuration as "
                            "JSON; needed unless the file's metadata hold an `open_clip_config`",
                        },
                        "name": {"type": "string", "maxLength": _MOST_NAME},
                    },
                }
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/ModelReference"}},
        },
    }
}


def model_out(model: Model) -> ModelOut:
    """The outside form of a model's row."""
    return ModelOut(
        **{name: getattr(model, name) for name in ModelOut.model_fields if name not in ("source", "error")},
        source=shown(model.source) if model.source else None,
        error=ErrorOut(**model.error) if model.error else None,
    )


@router.post(
    "/models",
    status_code=201,
    response_model=ModelOut,
    responses={
        201: {"headers": header_docs(Location="the model") | header_docs(False, Idempotency_Replayed=REPLAYED)},
        **problem_docs(408, 409, 413, 415, 507),
    },
    openapi_extra=_BODY,
)
async def bring_model(request: Request, service: ServiceDep, idempotency_key: IdempotencyKey = None) -> Response:
    """Stream a checkpoint in, or name what is to be copied. It is loaded once after the answer, to see whether it fits
    its architecture: poll until `status` is `ready` or `failed`."""
    by_reference = is_json(request, "send multipart/form-data, or application/json with a `uri` or a `job`")
    async with idempotent_request(service, "POST /models", idempotency_key) as idempotent:
        if by_reference:
            body = await read_body(request, MAX_FIELD_BYTES)
            return await run_in_threadpool(_create_from_reference, service, body, idempotent)
        async with staged_form(request, service, idempotent, files=["file"], fields=["name", "architecture"]) as form:
            return await run_in_threadpool(_create, service, form, idempotent)


def _create(service: Service, form: Form, idempotent: IdempotentRequest) -> Response:
    upload = form.files.get("file")
    if upload is None:
        raise InvalidError("missing_field", "form field 'file' is missing", "file")
    content = form.content()
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    name = form.fields.get("name") or (upload.filename or "")[:_MOST_NAME]
    if len(name) > _MOST_NAME:
        raise InvalidError("name_too_long", f"a name has at most {_MOST_NAME} characters", "name")
    architecture = architecture_of(upload.path, _form_architecture(service, form.fields.get("architecture")))
    model_id = new_id("model")
    owner = f"models/{model_id}"
    blob_owners.note(service.blobs, owner)
    with blob_owners.forgotten_on_error(service.blobs, owner):
        service.blobs.adopt(upload.path, models.upload_blob(model_id))
        with service.database.transaction() as session:
            service.limits.room_for_bytes(session, upload.size_bytes)
            model = models.create(
                session,
                model_id=model_id,
                name=storable_text(name) if name else None,
                architecture=architecture,
                digest=upload.digest,
                size_bytes=upload.size_bytes,
            )
            answer = _record(session, model, content, idempotent)
    service.bell.ring(shards.opened(session))
    return answer


def _form_architecture(service: Service, field: str | None) -> str | dict[str, Any] | None:
    """The architecture of a form, checked."""
    if not field:
        return None
    architecture: str | dict[str, Any] = field
    if field.lstrip().startswith("{"):
        architecture = parse(field, RootModel[dict[str, Any]], ("body", "architecture")).root
    elif len(field) > _MOST_NAME:
        raise InvalidError(
            "name_too_long", f"the name of an architecture has at most {_MOST_NAME} characters", "architecture"
        )
    check_architecture(architecture, "architecture")
    check_size(architecture, service.settings.ecif_max_model_bytes, "architecture")
    return architecture


def _create_from_reference(service: Service, body: bytes, idempotent: IdempotentRequest) -> Response:
    reference = parse(body, ModelReference, ("body",))
    content = reference.model_dump(mode="json", exclude_defaults=True)
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    if reference.architecture is not None:
        check_architecture(reference.architecture, "architecture")
        check_size(reference.architecture, service.settings.ecif_max_model_bytes, "architecture")
    if reference.uri is not None:
        check_reference(reference.uri, service.settings, trusted=service.limits is UNLIMITED)
    with service.database.transaction() as session:
        service.limits.room_for_bytes(session, 1)
        if reference.job is not None:
            _check_job(session, reference.job)
        model = models.create(
            session,
            model_id=new_id("model"),
            name=reference.name or (filename_of(reference.uri)[:_MOST_NAME] if reference.uri else None),
            architecture=reference.architecture,
            source=reference.uri or reference.job,
        )
        answer = _record(session, model, content, idempotent)
    service.bell.ring(shards.opened(session))
    return answer


def _check_job(session: Session, job_id: str) -> None:
    try:
        job = jobs.get(session, job_id)
    except NotFoundError as error:
        raise InvalidError("unknown_job", error.message, "job") from None
    if job.task != "removal" or job.status != JobStatus.SUCCEEDED:
        raise InvalidError("no_checkpoint", f"job {job_id} is no removal that has succeeded", "job")
    if not job.spec.get("model"):
        raise InvalidError("no_checkpoint", f"job {job_id} worked on embeddings: it has two heads and no model", "job")


def _record(session: Session, model: Model, content: dict[str, Any], idempotent: IdempotentRequest) -> Response:
    made = model_out(model)
    return idempotent.record_answer(
        session, content, Answer(201, {"Location": f"/models/{made.id}"}, made.model_dump_json())
    )


@router.get("/models", responses=LINKED)
def list_models(
    request: Request, response: Response, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> Page[ModelOut]:
    """Models, newest first. An inline `architecture` of more than 1,000 bytes is
    `{"abridged": true, "bytes": n}`: `GET /models/{id}` has all of it."""
    with service.database.transaction() as session:
        rows, following, total = newest_first(models, session, service.cursors, "models", limit, cursor)
        items = [model_out(model) for model in rows]
    link_next(request, response, following)
    return Page(items=items, next_cursor=following, total=total)


@router.get("/models/{model_id}", responses=problem_docs(404))
def get_model(model_id: str, service: ServiceDep) -> ModelOut:
    """One model."""
    with service.database.transaction() as session:
        return model_out(models.get(session, model_id))


@router.delete("/models/{model_id}", status_code=204, responses=problem_docs(404, 409))
def delete_model(model_id: str, service: ServiceDep) -> None:
    """Delete a model that no unfinished job uses. Results that it gave stay."""
    with service.database.transaction() as session:
        models.mark_deleted(session, model_id)
    service.blobs.delete_prefix(f"models/{model_id}")
