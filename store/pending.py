"""Uploads between their blob and their row.

Bytes are kept before the row that names them is committed, so a crash in between leaves bytes that nobody owns. Their
owner is noted first, in an empty blob, and the note goes when the row is there. What is noted for hours is looked into
by the sweeper. What is purged is noted too: a worker that does not know it yet may write once more. So nobody has to
search a whole store for what no row names, and a store may hold other things.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from obstore.exceptions import BaseError as BlobStoreError
from sqlalchemy.exc import SQLAlchemyError

from store.blobs import Blobs

_FOLDER = "pending"


def note(blobs: Blobs, owner: str) -> None:
    """Say that bytes of this owner (`datasets/<id>`, `models/<id>`) are about to be kept."""
    blobs.put(f"{_FOLDER}/{owner}", b"")


@contextmanager
def forgotten_on_error(blobs: Blobs, owner: str) -> Iterator[None]:
    """For the block that commits the row of an owner that was noted: deletes the bytes again if it is refused.

    Where the database fell silent nobody knows whether its commit was done: then they stay noted, and the sweeper looks
    whether a row names them.
    """
    try:
        yield
    except SQLAlchemyError:
        raise
    except BaseException:
        forget(blobs, owner)
        raise
    # The promise is made: a note that cannot be taken away now is none of the client's concern.
    with suppress(OSError, BlobStoreError):
        settle(blobs, owner)


def settle(blobs: Blobs, owner: str) -> None:
    """The row is there, or the bytes are gone."""
    blobs.delete(f"{_FOLDER}/{owner}")


def forget(blobs: Blobs, owner: str) -> None:
    """Delete the bytes, and the note of them."""
    blobs.delete_prefix(owner)
    settle(blobs, owner)


def longer_than(blobs: Blobs, age: timedelta) -> Iterator[str]:
    """The owners that were noted longer ago than `age` and never settled."""
    latest = datetime.now(UTC) - age
    for name, written_at in blobs.list(_FOLDER):
        if written_at < latest:
            yield name.removeprefix(f"{_FOLDER}/")
