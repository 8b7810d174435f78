"""From a finished upload to a dataset that is promised to be ingested."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.datasets.schemas import MAX_TEMPLATE
from service.uploads import UploadedFile
from store import blob_owners, datasets
from store.blobs import Blobs
from store.database import storable_text
from store.errors import InvalidError
from store.nouns import new_id
from store.tables import Dataset

MAX_NAME = 200


@dataclass(frozen=True)
class KeptUpload:
    """An upload whose bytes are kept, not yet a row."""

    dataset_id: str
    blob: str
    name: str | None
    filename: str | None
    format: str | None
    caption_template: str | None
    upload: UploadedFile

    def forgotten_on_error(self, blobs: Blobs) -> AbstractContextManager[None]:
        """For the block that commits its row (`store/blob_owners.py`)."""
        return blob_owners.forgotten_on_error(blobs, f"datasets/{self.dataset_id}")


def keep_upload(
    blobs: Blobs,
    upload: UploadedFile,
    field: str,
    name: str | None,
    format_name: str | None,
    caption_template: str | None = None,
) -> KeptUpload:
    """Move an upload to where datasets lie.

    Raises:
        InvalidError: it is empty, its name is too long, or the template is none.
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
    filename = storable_text(upload.filename)[:1000] if upload.filename else None
    dataset_id = new_id("ds")
    blob = f"datasets/{dataset_id}/upload"
    blob_owners.note(blobs, f"datasets/{dataset_id}")
    blobs.adopt(upload.path, blob)
    return KeptUpload(
        dataset_id=dataset_id,
        blob=blob,
        name=storable_text(name) if name else filename and filename[:MAX_NAME],
        filename=filename,
        format=storable_text(format_name) if format_name else None,
        caption_template=storable_text(caption_template) if caption_template else None,
        upload=upload,
    )


def new_dataset(session: Session, kept: KeptUpload) -> Dataset:
    """The row of a kept upload, with its ingest queued."""
    return datasets.create(
        session,
        dataset_id=kept.dataset_id,
        name=kept.name,
        filename=kept.filename,
        format=kept.format,
        digest=kept.upload.digest,
        size_bytes=kept.upload.size_bytes,
        upload_blob=kept.blob,
        caption_template=kept.caption_template,
    )
