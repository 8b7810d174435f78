"""`/datasets`: upload, look at and delete datasets."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.bodies import is_json
from service.context import Service, ServiceDep
from service.datasets.creation import create_from_reference, new_dataset, store_upload
from service.datasets.schemas import MAX_TEMPLATE, DatasetOut, PairOut, created, dataset_out
from service.errors import header_docs, problem_docs
from service.idempotency import REPLAYED, IdempotencyKey, IdempotentRequest, idempotent_request
from service.labels import MAX_KEY, MAX_METADATA, MAX_NAME, MAX_VALUE, WantedDatasets
from service.multipart import Form, staged_form
from service.pagination import LINKED, MAX_LIMIT, Cursor, Limit, Page, link_next, newest_first
from store import datasets, duplicates, pairs, shards
from store.errors import InvalidError
from store.states import DuplicateKind

router = APIRouter(tags=["datasets"])

_FIELDS = ["name", "format", "caption_template", "metadata"]

_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "the dataset, as one file"},
                        "name": {"type": "string", "maxLength": MAX_NAME},
                        "metadata": {
                            "type": "object",
                            "maxProperties": MAX_METADATA,
                            "propertyNames": {"minLength": 1, "maxLength": MAX_KEY},
                            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
                            "description": "as JSON: pairs of text of your own",
                        },
                        "format": {"type": "string", "description": "found out where absent"},
                        "caption_template": {
                            "type": "string",
                            "maxLength": MAX_TEMPLATE,
                            "pattern": r"\{label\}",
                            "description": "captions of images in folders named by their class; "
                            "'a photo of a {label}' where absent",
                        },
                    },
                },
                "encoding": {"metadata": {"contentType": "application/json"}},
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/DatasetReference"}},
        },
    }
}


@router.post(
    "/datasets",
    status_code=201,
    response_model=DatasetOut,
    responses={
        201: {"headers": header_docs(Location="the dataset") | header_docs(False, Idempotency_Replayed=REPLAYED)},
        **problem_docs(408, 409, 413, 415, 507),
    },
    openapi_extra=_UPLOAD_BODY,
)
async def upload_dataset(request: Request, service: ServiceDep, idempotency_key: IdempotencyKey = None) -> Response:
    """Stream an upload in, or name as JSON one that came in pieces (`/uploads`), or what is to be fetched.

    Ingest goes on after the answer: poll until `status` is `ready` or `failed`.
    """
    from_reference = is_json(request, "send multipart/form-data, or application/json")
    async with idempotent_request(service, "POST /datasets", idempotency_key) as idempotent:
        if from_reference:
            return await create_from_reference(request, service, idempotent)
        async with staged_form(request, service, idempotent, files=["file"], fields=_FIELDS) as form:
            return await run_in_threadpool(_create, service, form, idempotent)


def _create(service: Service, form: Form, idempotent: IdempotentRequest) -> Response:
    if "file" not in form.files:
        raise InvalidError("missing_field", "form field 'file' is missing", "file")
    content = form.content()
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    stored = store_upload(
        service.blobs, form.files["file"], "file", **{field: form.fields.get(field) for field in _FIELDS}
    )
    with stored.forgotten_on_error(service.blobs), service.database.transaction() as session:
        service.limits.room_for_datasets(session, 1, stored.upload.size_bytes)
        answer = idempotent.record_answer(session, content, created(new_dataset(session, stored)))
    service.bell.ring(shards.opened(session))
    return answer


@router.get("/datasets", responses=LINKED)
def list_datasets(
    request: Request,
    response: Response,
    service: ServiceDep,
    wanted: WantedDatasets,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[DatasetOut]:
    """Datasets, newest first; `metadata.KEY=VALUE` lists those with this pair."""
    with service.database.transaction() as session:
        rows, following, total = newest_first(datasets, session, service.cursors, "datasets", limit, cursor, wanted)
        items = [dataset_out(dataset) for dataset in rows]
    link_next(request, response, following)
    return Page(items=items, next_cursor=following, total=total)


@router.get("/datasets/{dataset_id}", responses=problem_docs(404))
def get_dataset(dataset_id: str, service: ServiceDep) -> DatasetOut:
    """One dataset."""
    with service.database.transaction() as session:
        return dataset_out(datasets.get(session, dataset_id))


@router.delete("/datasets/{dataset_id}", status_code=204, responses=problem_docs(404, 409))
def delete_dataset(dataset_id: str, service: ServiceDep) -> None:
    """Delete a dataset: its images now, its keys and captions once no job shows them in its results."""
    with service.database.transaction() as session:
        datasets.mark_deleted(session, dataset_id)
    service.blobs.delete_prefix(f"datasets/{dataset_id}")


@router.get("/datasets/{dataset_id}/pairs", responses={**LINKED, **problem_docs(404, 422)})
def list_pairs(
    dataset_id: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    rejected: Annotated[
        bool | None, Query(description="true: only what was turned away; false: only the usable")
    ] = None,
    duplicate: Annotated[
        DuplicateKind | None, Query(description="only pairs that equal another in this, those that are equal in turn")
    ] = None,
) -> Page[PairOut]:
    """Pairs in the order of the upload; those of an ingesting dataset as far as they are kept."""
    limit = min(limit, MAX_LIMIT)
    if duplicate is not None:
        if rejected is not None:
            raise InvalidError("two_filters", "`duplicate` lists usable pairs only: leave `rejected` out", "rejected")
        return _duplicates(dataset_id, duplicate, request, response, service, limit, cursor)
    question = {"pairs": dataset_id, "rejected": rejected}
    after = service.cursors.read(question, cursor)[0] if cursor else None
    with service.database.transaction() as session:
        dataset = datasets.get(session, dataset_id)
        rows = pairs.page(session, dataset.number, limit=limit + 1, after=after, rejected=rejected)
    usable, turned_away = dataset.pair_count or 0, dataset.rejected_count or 0
    total = usable + turned_away if rejected is None else turned_away if rejected else usable
    following = service.cursors.make(question, [rows[limit - 1].position]) if len(rows) > limit else None
    link_next(request, response, following)
    items = [PairOut.model_validate(pair) for pair in rows[:limit]]
    return Page(items=items, next_cursor=following, total=total)


def _duplicates(
    dataset_id: str,
    kind: DuplicateKind,
    request: Request,
    response: Response,
    service: Service,
    limit: int,
    cursor: str | None,
) -> Page[PairOut]:
    question = {"pairs": dataset_id, "duplicate": kind.value}
    after = tuple(service.cursors.read(question, cursor)) if cursor else None
    with service.database.transaction() as session:
        dataset = datasets.get(session, dataset_id)
        rows = duplicates.page(session, dataset.number, kind, limit=limit + 1, after=after)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = service.cursors.make(question, [last.first, last.pair.position])
    link_next(request, response, following)
    items = [
        PairOut.model_validate(row.pair).model_copy(update={"duplicate_of": row.first_key}) for row in rows[:limit]
    ]
    counted = (dataset.summary or {}).get("duplicates", {}).get(kind.value, {})
    return Page(items=items, next_cursor=following, total=counted.get("pairs", 0))
