"""`POST /datasets` as JSON: a dataset whose bytes are here already, or are to be fetched."""

from typing import Annotated, Self

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from service.context import Service
from service.datasets.keeping import MAX_NAME
from service.datasets.schemas import MAX_TEMPLATE, created
from service.json_body import parse
from service.limits import UNLIMITED
from service.repeats import Once
from service.resumable import protocol
from service.resumable.digests import digest_of
from service.uploads import MAX_FIELD_BYTES, read_body
from store import datasets, shards, uploads
from store.errors import InvalidError
from store.nouns import new_id
from store.references import check_references, filename_of


class DatasetReference(BaseModel):
    """A dataset without a file in the request: either `upload` or `uri`."""

    model_config = ConfigDict(extra="forbid")

    upload: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="the id of a finished upload (`/uploads`): it becomes the dataset"
    )
    uri: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="https://host/file, s3://bucket/key or gs://bucket/key, in any format of uploads; several files as "
        "https://host/{00000..00099}.tar or s3://bucket/folder/",
    )
    name: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    format: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="found out where absent")
    caption_template: Annotated[str, Field(max_length=MAX_TEMPLATE, pattern=r"\{label\}")] | None = Field(
        default=None, description="captions of images in folders named by their class"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.uri is None):
            raise ValueError("name either `upload` or `uri`")
        return self


async def create_from_reference(request: Request, service: Service, once: Once) -> Response:
    """Make a dataset of what the body names.

    Raises:
        InvalidError: the upload is unknown, unfinished or empty; the URI is none that would be fetched.
        ConflictError: the upload is a dataset already.
    """
    body = await read_body(request, MAX_FIELD_BYTES)
    return await run_in_threadpool(_create, service, body, once)


def _create(service: Service, body: bytes, once: Once) -> Response:
    asked = parse(body, DatasetReference, ("body",))
    content = asked.model_dump(exclude_none=True)
    if (answered := once.first_answer(content)) is not None:
        return answered
    make = _of_upload if asked.upload is not None else _of_uri
    return make(service, asked, once)


def _of_uri(service: Service, asked: DatasetReference, once: Once) -> Response:
    uri = asked.uri or ""
    check_references(uri, service.settings, trusted=service.limits is UNLIMITED)
    dataset_id, filename = new_id("ds"), filename_of(uri)[:1000]
    with service.database.transaction() as session:
        service.limits.room_for_datasets(session, 1, 1)  # how many bytes is known when they are fetched
        dataset = datasets.create(
            session,
            dataset_id=dataset_id,
            name=asked.name or filename[:MAX_NAME],
            filename=filename,
            format=asked.format or None,
            caption_template=asked.caption_template,
            upload_blob=f"datasets/{dataset_id}/upload",
            source=uri,
        )
        answer = once.answer(session, asked.model_dump(exclude_none=True), created(dataset))
    service.bell.ring(shards.opened(session))
    return answer


def _of_upload(service: Service, asked: DatasetReference, once: Once) -> Response:
    upload_id = asked.upload or ""
    with service.database.transaction() as session:
        upload = uploads.whole(session, upload_id)
    if upload.length == 0:
        raise InvalidError("empty_file", f"upload {upload.id} is empty", "upload")
    digest = digest_of(service.blobs, upload)
    filename = protocol.filename(upload.metadata_header)
    with service.database.transaction() as session:
        service.limits.room_for_datasets(session, 1, 0)  # its bytes were promised with the upload
        upload = uploads.whole(session, upload_id, lock=True)
        dataset = datasets.create(
            session,
            dataset_id=upload.dataset_id,
            name=asked.name or (filename and filename[:MAX_NAME]),
            filename=filename,
            format=asked.format or None,
            caption_template=asked.caption_template,
            digest=digest,
            size_bytes=upload.length,
            upload_blob=uploads.blob_of(upload),
        )
        uploads.use(upload)
        answer = once.answer(session, asked.model_dump(exclude_none=True), created(dataset))
    service.bell.ring(shards.opened(session))
    return answer
