"""What models made of the parts of datasets, and where the features of one image or caption stand in it: all SQL.

A part's blob is announced before it is written, so that what is kept is always counted; it may be read once it is
marked whole (docs/decisions/0015-models-and-features.md).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import any_, bindparam, delete, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import Uuid

from store import jobs
from store.tables import Dataset, EncodedPart, Feature


@dataclass(frozen=True)
class Place:
    """Where one thing's features are: a row of the records in a blob, which belongs to a dataset."""

    blob: str
    dataset_id: str
    row: int


def is_whole(session: Session, blob: str) -> bool:
    """Whether this blob was written to its end; it counts as used now."""
    touched = update(EncodedPart).where(EncodedPart.blob == blob, EncodedPart.whole).values(used_at=func.now())
    return session.execute(touched.returning(EncodedPart.id)).first() is not None


def announce(session: Session, dataset_id: str, blob: str, size_bytes: int) -> int:
    """Count a blob that is about to be written, or written anew; return its number."""
    fresh = {"size_bytes": size_bytes, "used_at": func.now()}
    statement = insert(EncodedPart).values(dataset_id=dataset_id, blob=blob, **fresh)
    statement = statement.on_conflict_do_update(index_elements=["blob"], set_=fresh)
    return session.execute(statement.returning(EncodedPart.id)).scalar_one()


def record(session: Session, number: int, rows: Mapping[UUID, int]) -> None:
    """A blob is whole: from now on the features of these keys are read from its rows."""
    session.execute(update(EncodedPart).where(EncodedPart.id == number).values(whole=True))
    if rows:
        keys = sorted(rows)  # the same order everywhere: two that write the same keys never wait in a circle
        session.execute(_RECORD, {"number": number, "keys": keys, "rows": [rows[key] for key in keys]})


_RECORD = text(
    "INSERT INTO features (key, part, row) "
    "SELECT new.key, :number, new.row FROM unnest(CAST(:keys AS uuid[]), CAST(:rows AS integer[])) AS new (key, row) "
    "ON CONFLICT (key) DO UPDATE SET part = excluded.part, row = excluded.row"
)


def find(session: Session, keys: Collection[UUID]) -> dict[UUID, Place]:
    """Where the features of these keys are, of those that have any."""
    wanted = bindparam("keys", list(keys), type_=ARRAY(Uuid()))
    places = session.execute(
        select(Feature.key, EncodedPart.blob, EncodedPart.dataset_id, Feature.row)
        .join(EncodedPart, EncodedPart.id == Feature.part)
        .where(Feature.key == any_(wanted))
    )
    return {key: Place(blob, dataset_id, row) for key, blob, dataset_id, row in places}


def kept_bytes(session: Session) -> int:
    """The size of all blobs that are announced."""
    return int(session.scalar(select(func.sum(EncodedPart.size_bytes))) or 0)


def to_drop(session: Session, most_bytes: int, at_once: int) -> Sequence[EncodedPart]:
    """Blobs to let go, locked for this transaction: all those of deleted datasets and, as long as there are more than
    `most_bytes`, those used longest ago. Never one that an unfinished job may read."""
    orphans = session.scalars(
        select(EncodedPart)
        .where(~exists().where(Dataset.id == EncodedPart.dataset_id, Dataset.deleted_at.is_(None)))
        .limit(at_once)
        .with_for_update(skip_locked=True)
    ).all()
    excess = kept_bytes(session) - most_bytes
    if orphans or excess <= 0:
        return orphans
    oldest = session.scalars(
        select(EncodedPart)
        .where(~jobs.works_on(EncodedPart.dataset_id))
        .order_by(EncodedPart.used_at, EncodedPart.id)
        .limit(at_once)
        .with_for_update(skip_locked=True)
    ).all()
    # A new job locks the datasets that it names: once they are held here it waits, and those before it are seen.
    owners = sorted({part.dataset_id for part in oldest})
    session.execute(select(Dataset.id).where(Dataset.id.in_(owners)).order_by(Dataset.id).with_for_update())
    idle = {owner for owner in owners if not jobs.unfinished_on(session, owner)}
    doomed = []
    for part in oldest:
        if excess > 0 and part.dataset_id in idle:
            doomed.append(part)
            excess -= part.size_bytes
    return doomed


def drop(session: Session, doomed: Iterable[EncodedPart]) -> None:
    """Forget these blobs, which are gone, and what stood in them."""
    numbers = [part.id for part in doomed]
    session.execute(delete(Feature).where(Feature.part.in_(numbers)))
    session.execute(delete(EncodedPart).where(EncodedPart.id.in_(numbers)))
