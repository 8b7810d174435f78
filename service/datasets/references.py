"""`POST /datasets` as JSON: a dataset whose bytes are here already, or are named."""

from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from service.context import Service
from service.datasets.keeping import MAX_NAME
from service.datasets.schemas import created
from service.jobs.submission import parse
from service.repeats import Once
from service.resumable import protocol
from service.resumable.digests import digest_of
from service.uploads import MAX_FIELD_BYTES, read_body
from store import datasets, uploads
from store.errors import InvalidError


class DatasetReference(BaseModel):
    """A dataset without a file in the request."""

    model_config = ConfigDict(extra="forbid")

    upload: Annotated[str, Field(description="the id of a finished upload: it becomes the dataset")]
    name: Annotated[str | None, Field(max_length=MAX_NAME)] = None
    format: Annotated[str | None, Field(description="found out where absent")] = None


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def create_from_reference(request: Request, service: Service, once: Once) -> Response:
    """Make a dataset of what the body names.

    Raises:
        InvalidError: the upload is unknown, unfinished or empty.
        ConflictError: it is a dataset already.
    """
    body = await read_body(request, MAX_FIELD_BYTES)
    return await run_in_threadpool(_create, service, body, once)


def _create(service: Service, body: bytes, once: Once) -> Response:
    asked: DatasetReference = parse(body, DatasetReference, ("body",))
    content = asked.model_dump(exclude_none=True)
    if (answered := once.first_answer(content)) is not None:
        return answered
    with service.database.transaction() as session:
        upload = uploads.whole(session, asked.upload)
    if upload.length == 0:
        raise InvalidError("empty_file", f"upload {upload.id} is empty", "upload")
    digest = digest_of(service.blobs, upload)
    filename = protocol.filename(upload.metadata_header)
    with service.database.transaction() as session:
        upload = uploads.whole(session, asked.upload, lock=True)
        dataset = datasets.create(
            session,
            dataset_id=upload.dataset_id,
            name=asked.name or (filename and filename[:MAX_NAME]),
            filename=filename,
            format=asked.format,
            digest=digest,
            size_bytes=upload.length,
            upload_blob=uploads.blob_of(upload),
        )
        uploads.use(upload)
        answer = once.answer(session, content, created(dataset))
    service.bell.ring()
    return answer
