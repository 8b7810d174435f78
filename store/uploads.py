"""Uploads in pieces: all SQL over their rows (docs/decisions/0011-resumable-uploads.md).

Every piece is written in the transaction that acknowledges it, under the lock of its row: what a row says was received
is kept, whatever dies, and of two requests that write to one upload the older one finds that it is no longer its turn.
"""

import secrets
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.database import tenant_of
from store.errors import ConflictError, InvalidError, NotFoundError
from store.nouns import new_id
from store.tables import Upload


def blob_of(upload: Upload) -> str:
    """Where its bytes are, from the first piece on."""
    return f"datasets/{upload.dataset_id}/upload"


def create(session: Session, *, length: int, metadata_header: str | None, lifetime: timedelta) -> Upload:
    """Promise to keep `length` bytes that will come."""
    upload = Upload(
        id=new_id("up"),
        tenant=tenant_of(session),
        dataset_id=new_id("ds"),
        length=length,
        metadata_header=metadata_header,
        expires_at=func.now() + lifetime,
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get(session: Session, upload_id: str, *, lock: bool = False) -> Upload:
    """One upload; `lock` holds its row until the transaction ends.

    Raises:
        NotFoundError: there is none, or it has expired.
    """
    query = select(Upload).where(Upload.id == upload_id, Upload.expires_at > func.clock_timestamp())
    upload = session.scalar(query.with_for_update() if lock else query)
    if upload is None:
        raise NotFoundError("upload_not_found", f"there is no upload {upload_id!r}, or it has expired")
    return upload


def begin(session: Session, upload_id: str, offset: int) -> Upload:
    """Let one request add to an upload, and no other any more: `writer` is its ticket.

    Raises:
        NotFoundError: there is none.
        ConflictError: it goes on somewhere else, or is a dataset already.
    """
    upload = get(session, upload_id, lock=True)
    _refuse_used(upload)
    if offset != upload.received:
        raise ConflictError("wrong_offset", f"upload {upload_id} goes on at byte {upload.received}, not {offset}")
    upload.writer = secrets.token_hex(16)
    return upload


def locked_for(session: Session, upload_id: str, writer: str) -> Upload:
    """The row, locked, for the request that holds the ticket.

    Raises:
        NotFoundError: it was deleted meanwhile.
        ConflictError: another request goes on with it.
    """
    upload = get(session, upload_id, lock=True)
    if upload.writer != writer:
        raise ConflictError("upload_taken_over", f"another request goes on with upload {upload_id}")
    return upload


def acknowledge(upload: Upload, received: int, lifetime: timedelta) -> None:
    """Say that so many of its bytes are kept."""
    upload.received = received
    upload.expires_at = func.now() + lifetime


def refreshed(session: Session, upload: Upload) -> Upload:
    """The row with what the database makes of its changes: times are its own."""
    session.flush()
    session.refresh(upload)
    return upload


def whole(session: Session, upload_id: str, *, lock: bool = False) -> Upload:
    """A finished upload that is to become a dataset.

    Raises:
        InvalidError: there is none, or some of it is missing; `param` is `upload`.
        ConflictError: it is a dataset already.
    """
    try:
        upload = get(session, upload_id, lock=lock)
    except NotFoundError as error:
        raise InvalidError("unknown_upload", error.message, "upload") from None
    _refuse_used(upload)
    if upload.received < upload.length:
        missing = f"upload {upload_id} has {upload.received:,} of its {upload.length:,} bytes: send the others first"
        raise InvalidError("upload_unfinished", missing, "upload")
    return upload


def use(upload: Upload) -> None:
    """Say that it is a dataset now, in the transaction that makes it one."""
    upload.used_at = func.now()


def delete(session: Session, upload_id: str) -> Upload:
    """Make it invisible now, so that nobody adds to it; the sweeper forgets it.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is a dataset already.
    """
    upload = get(session, upload_id, lock=True)
    _refuse_used(upload)
    session.execute(update(Upload).where(Upload.id == upload_id).values(expires_at=func.now()))
    return upload


def promised_bytes(session: Session) -> int:
    """What uploads that are no datasets yet will take when they are whole."""
    open_ones = select(func.sum(Upload.length)).where(Upload.used_at.is_(None), Upload.expires_at > func.now())
    return int(session.scalar(open_ones) or 0)


def expired(session: Session) -> Upload | None:
    """One that nobody can reach any more, locked for this transaction."""
    return session.scalar(
        select(Upload).where(Upload.expires_at <= func.now()).limit(1).with_for_update(skip_locked=True)
    )


def purge(session: Session, upload: Upload) -> None:
    """Forget an upload whose bytes are gone, or belong to a dataset."""
    session.delete(upload)


def _refuse_used(upload: Upload) -> None:
    if upload.used_at is not None:
        raise ConflictError("upload_used", f"upload {upload.id} is dataset {upload.dataset_id} already")
