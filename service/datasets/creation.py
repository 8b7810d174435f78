"""Datasets that a request makes: of an upload, or, as JSON, of bytes that are here already or are to be fetched."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.bodies import MAX_FIELD_BYTES, read_body
from service.context import Service
from service.datasets.schemas import MAX_TEMPLATE, created
from service.idempotency import IdempotentRequest
from service.json_body import parse
from service.labels import MAX_NAME, Metadata, Name, form_metadata
from service.limits import UNLIMITED
from service.multipart import UploadedFile
from service.resumable import protocol
from service.resumable.digests import digest_of
from store import blob_owners, datasets, shards, uploads
from store.blobs import Blobs
from store.database import storable_text
from store.errors import InvalidError
from store.nouns import new_id
from store.references import check_references, filename_of
from store.tables import Dataset


@dataclass(frozen=True)
class StoredUpload:
    """An upload whose bytes are a blob, with no row yet."""

    dataset_id: str
    blob: str
    name: str | None
    metadata: dict[str, str]
    filename: str | None
    format: str | None
    caption_template: str | None
    upload: UploadedFile

    def forgotten_on_error(self, blobs: Blobs) -> AbstractContextManager[None]:
        """For the block that commits its row (`store/blob_owners.py`)."""
        return blob_owners.forgotten_on_error(blobs, f"datasets/{self.dataset_id}")


def store_upload(
    blobs: Blobs,
    upload: UploadedFile,
    field: str,
    *,
    name: str | None = None,
    format: str | None = None,  # noqa: A002  the contract's own name
    caption_template: str | None = None,
    metadata: str | None = None,
) -> StoredUpload:
    """Move an upload to the blob of a new dataset.

    Raises:
        InvalidError: it is empty, its name is too long, or the template is none.
        RequestValidationError: its metadata are none.
    """
    if upload.size_bytes == 0:
        raise InvalidError("empty_file", f"form field {field!r} is an empty file", field)
    if name is not None and len(name) > MAX_NAME:
        raise InvalidError("name_too_long", f"a name has at most {MAX_NAME} characters", "name")
    if caption_template is not None and (
        "{label}" not in caption_template or len(caption_template) > MAX_TEMPLATE or "\0" in caption_template
    ):
        raise InvalidError(
            "bad_caption_template",
            f"a caption template holds {{label}}, where the class goes, and at most {MAX_TEMPLATE} characters",
            "caption_template",
        )
    pairs = form_metadata(metadata)
    filename = storable_text(upload.filename)[:1000] if upload.filename else None
    dataset_id = new_id("ds")
    blob = f"datasets/{dataset_id}/upload"
    blob_owners.note(blobs, f"datasets/{dataset_id}")
    blobs.adopt(upload.path, blob)
    return StoredUpload(
        dataset_id=dataset_id,
        blob=blob,
        name=storable_text(name) if name else filename and filename[:MAX_NAME],
        metadata=pairs,
        filename=filename,
        format=storable_text(format) if format else None,
        caption_template=storable_text(caption_template) if caption_template else None,
        upload=upload,
    )


def new_dataset(session: Session, stored: StoredUpload) -> Dataset:
    """The row of a stored upload, with its ingest queued."""
    return datasets.create(
        session,
        dataset_id=stored.dataset_id,
        name=stored.name,
        metadata=stored.metadata,
        filename=stored.filename,
        format=stored.format,
        digest=stored.upload.digest,
        size_bytes=stored.upload.size_bytes,
        upload_blob=stored.blob,
        caption_template=stored.caption_template,
    )


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
    name: Name | None = None
    metadata: Metadata | None = None
    format: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="found out where absent")
    caption_template: Annotated[str, Field(max_length=MAX_TEMPLATE, pattern=r"\{label\}")] | None = Field(
        default=None, description="captions of images in folders named by their class"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.uri is None):
            raise ValueError("name either `upload` or `uri`")
        return self


async def create_from_reference(request: Request, service: Service, idempotent: IdempotentRequest) -> Response:
    """Make a dataset of what the body names.

    Raises:
        InvalidError: the upload is unknown, unfinished or empty; the URI is none that would be fetched.
        ConflictError: the upload is a dataset already.
    """
    body = await read_body(request, MAX_FIELD_BYTES)
    return await run_in_threadpool(_create, service, body, idempotent)


def _create(service: Service, body: bytes, idempotent: IdempotentRequest) -> Response:
    reference = parse(body, DatasetReference, ("body",))
    content = reference.model_dump(exclude_none=True)
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    make = _of_upload if reference.upload is not None else _of_uri
    return make(service, reference, idempotent)


def _of_uri(service: Service, reference: DatasetReference, idempotent: IdempotentRequest) -> Response:
    uri = reference.uri or ""
    check_references(uri, service.settings, trusted=service.limits is UNLIMITED)
    dataset_id, filename = new_id("ds"), filename_of(uri)[:1000]
    with service.database.transaction() as session:
        service.limits.room_for_datasets(session, 1, 1)  # how many bytes is known when they are fetched
        dataset = datasets.create(
            session,
            dataset_id=dataset_id,
            name=reference.name or filename[:MAX_NAME],
            filename=filename,
            format=reference.format or None,
            caption_template=reference.caption_template,
            metadata=reference.metadata,
            upload_blob=f"datasets/{dataset_id}/upload",
            source=uri,
        )
        answer = idempotent.record_answer(session, reference.model_dump(exclude_none=True), created(dataset))
    service.bell.ring(shards.opened(session))
    return answer


def _of_upload(service: Service, reference: DatasetReference, idempotent: IdempotentRequest) -> Response:
    upload_id = reference.upload or ""
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
            name=reference.name or (filename and filename[:MAX_NAME]),
            filename=filename,
            format=reference.format or None,
            caption_template=reference.caption_template,
            metadata=reference.metadata,
            digest=digest,
            size_bytes=upload.length,
            upload_blob=uploads.blob_of(upload),
        )
        uploads.use(upload)
        answer = idempotent.record_answer(session, reference.model_dump(exclude_none=True), created(dataset))
    service.bell.ring(shards.opened(session))
    return answer
