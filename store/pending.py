"""Uploads between their blob and their row.

Bytes are kept before the row that names them is committed, so a crash in between leaves bytes that nobody owns. Their
owner is noted first, in an empty blob, and the note goes when the row is there. What is noted for hours is looked into
by the sweeper. So nobody has to search a whole store for what no row names, and a store may hold other things.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from store.blobs import Blobs

_FOLDER = "pending"


def note(blobs: Blobs, dataset_id: str) -> None:
    """Say that bytes for this dataset are about to be kept."""
    blobs.put(f"{_FOLDER}/{dataset_id}", b"")


def settle(blobs: Blobs, dataset_id: str) -> None:
    """The row is there, or the bytes are gone."""
    blobs.delete(f"{_FOLDER}/{dataset_id}")


def longer_than(blobs: Blobs, age: timedelta) -> Iterator[str]:
    """The datasets that were noted longer ago than `age` and never settled."""
    latest = datetime.now(UTC) - age
    for name, written_at in blobs.list(_FOLDER):
        if written_at < latest:
            yield name.removeprefix(f"{_FOLDER}/")
