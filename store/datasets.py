"""Datasets: all SQL over their rows and parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from store import duplicates, jobs, shards
from store.database import tenant_of
from store.errors import ConflictError, InvalidError
from store.nouns import Before, Noun, Wanted
from store.phases import Owner, OwnerKind, Phase
from store.states import DatasetStatus
from store.tables import Dataset, Job, Pair, Part


@dataclass(frozen=True)
class Ingested:
    """What ingest found out about a dataset."""

    format: str
    kind: str
    width: int | None
    pair_count: int
    rejected_count: int
    warnings: list[str]
    summary: dict[str, Any]


def create(
    session: Session,
    *,
    dataset_id: str,
    name: str | None,
    filename: str | None,
    format: str | None,  # noqa: A002  the contract's own name
    upload_blob: str,
    digest: str | None = None,
    size_bytes: int = 0,
    source: str | None = None,
    caption_template: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Dataset:
    """Promise to ingest an upload that is kept already, or what is to be fetched from `source`; queue its work."""
    dataset = Dataset(
        id=dataset_id,
        tenant=tenant_of(session),
        name=name,
        user_metadata=metadata or None,
        filename=filename,
        format=format,
        caption_template=caption_template,
        status=DatasetStatus.INGESTING,
        digest=digest,
        size_bytes=size_bytes,
        upload_blob=upload_blob,
        source=source,
    )
    session.add(dataset)
    session.flush()
    session.refresh(dataset)
    first = Phase.INDEX if source is None else Phase.FETCH
    shards.open_phase(session, Owner(OwnerKind.DATASET, dataset_id), first, [shards.Planned({})])
    return dataset


def fetched(session: Session, dataset_id: str, *, blob: str, digest: str, size_bytes: int) -> None:
    """Record what was fetched for a dataset."""
    values = {"upload_blob": blob, "digest": digest, "size_bytes": size_bytes}
    session.execute(update(Dataset).where(Dataset.id == dataset_id).values(values))


_DATASETS = Noun(Dataset, "dataset")
find, get, exists = _DATASETS.find, _DATASETS.get, _DATASETS.exists
lock, count = _DATASETS.lock, _DATASETS.count
find_including_deleted, get_including_deleted = _DATASETS.find_including_deleted, _DATASETS.get_including_deleted


def usable(session: Session, dataset_id: str, param: str) -> Dataset:
    """A dataset that a job may name: ready, or still ingesting. The row is locked against deletion.

    Raises:
        InvalidError: there is none, or it failed; `param` names the field that asked for it.
    """
    dataset = _DATASETS.named(session, dataset_id, param)
    if dataset.status == DatasetStatus.FAILED:
        reason = (dataset.error or {}).get("message", "its ingest failed")
        raise InvalidError("dataset_failed", f"dataset {dataset_id} cannot be used: {reason}", param)
    return dataset


def page(session: Session, wanted: Wanted, *, limit: int, before: Before) -> Sequence[Dataset]:
    """Newest first, from just below `before`."""
    return session.scalars(_DATASETS.page(wanted, limit=limit, before=before)).all()


def names(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """What to call these datasets, deleted ones too: their name, their file, or their id."""
    called = func.coalesce(Dataset.name, Dataset.filename, Dataset.id)
    rows = session.execute(select(Dataset.id, called).where(Dataset.id.in_(sorted(ids))))
    return {row[0]: row[1] for row in rows}


def stored_bytes(session: Session) -> int:
    """The size of all uploads that are kept, and of the parts that were read from them."""
    sizes = func.sum(Dataset.size_bytes + Dataset.kept_bytes)
    return int(session.scalar(select(sizes).where(Dataset.deleted_at.is_(None))) or 0)


def count_ingesting(session: Session) -> int:
    """Datasets that are still to become ready or to fail."""
    unfinished = Dataset.status == DatasetStatus.INGESTING, Dataset.deleted_at.is_(None)
    return session.scalar(select(func.count()).select_from(Dataset).where(*unfinished)) or 0


def mark_deleted(session: Session, dataset_id: str) -> None:
    """Make it invisible now; the sweeper purges what it holds.

    Raises:
        NotFoundError: there is none.
        ConflictError: an unfinished job works on it.
    """
    dataset = _DATASETS.lock_visible(session, dataset_id)
    users = jobs.unfinished_on(session, dataset_id)
    if users:
        raise ConflictError("dataset_in_use", f"job {users[0]} works on it: cancel it or wait for it to end")
    dataset.deleted_at = func.now()
    shards.drop_open(session, Owner(OwnerKind.DATASET, dataset_id))


def finish_ingest(session: Session, dataset_id: str, ingested: Ingested) -> None:
    """Make a dataset ready. The jobs that waited for it begin in transactions of their own (`jobs.begin`)."""
    session.execute(
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.status == DatasetStatus.INGESTING)
        .values(
            status=DatasetStatus.READY,
            format=ingested.format,
            kind=ingested.kind,
            width=ingested.width,
            pair_count=ingested.pair_count,
            rejected_count=ingested.rejected_count,
            warnings={"messages": ingested.warnings} if ingested.warnings else None,
            summary=ingested.summary,
            finished_at=func.now(),
        )
    )


def fail_ingest(session: Session, dataset_id: str, error: dict[str, Any], rejected: int | None = None) -> None:
    """End a dataset as failed, unless it has ended already. The jobs that waited for it end in transactions of their
    own (`jobs.begin`)."""
    ended = session.scalar(
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.status == DatasetStatus.INGESTING)
        .values(status=DatasetStatus.FAILED, error=error, pair_count=0, rejected_count=rejected, finished_at=func.now())
        .returning(Dataset.id)
    )
    if ended is not None:
        shards.drop_open(session, Owner(OwnerKind.DATASET, dataset_id))


def set_parts(session: Session, dataset_id: str, parts: Iterable[Part]) -> None:
    """Record the parts of a dataset, in place of what an earlier attempt recorded."""
    session.execute(delete(Part).where(Part.dataset_id == dataset_id))
    session.add_all(parts)
    session.flush()


def parts(session: Session, dataset_id: str) -> Sequence[Part]:
    """The parts of a dataset in row order."""
    return session.scalars(select(Part).where(Part.dataset_id == dataset_id).order_by(Part.part)).all()


def to_purge(session: Session) -> Dataset | None:
    """A deleted dataset that no job names any more, locked for this transaction.

    Its images went when it was deleted. Keys and captions stay for the results that show them, until the last
    job that used it is deleted too.
    """
    named = select(Job.id).where(
        or_(*(column == Dataset.id for column in (Job.dataset_id, Job.validation_dataset_id, Job.queries_dataset_id)))
    )
    return _DATASETS.to_purge(session, ~named.exists())


def purge(session: Session, dataset: Dataset, rows: int) -> bool:
    """Delete up to `rows` pairs of a deleted dataset; true when nothing of it is left."""
    if not duplicates.purge(session, dataset.number, rows):
        return False
    mine = Pair.dataset == dataset.number
    doomed = select(Pair.position).where(mine).limit(rows)
    gone = session.execute(delete(Pair).where(mine, Pair.position.in_(doomed)))
    if gone.rowcount == rows:  # type: ignore[attr-defined]
        return False
    if not shards.purge(session, Owner(OwnerKind.DATASET, dataset.id), rows):
        return False
    session.execute(delete(Part).where(Part.dataset_id == dataset.id))
    session.delete(dataset)
    return True


def count_parts(session: Session, dataset_id: str) -> int:
    """How many parts a dataset has."""
    return session.scalar(select(func.count()).select_from(Part).where(Part.dataset_id == dataset_id)) or 0


def part(session: Session, dataset_id: str, number: int | None) -> Part | None:
    """One part of a dataset."""
    return session.scalar(select(Part).where(Part.dataset_id == dataset_id, Part.part == number))


def number(session: Session, dataset_id: str) -> int:
    """The number of a dataset, deleted ones too: results outlive the dataset that they were computed from."""
    return session.execute(select(Dataset.number).where(Dataset.id == dataset_id)).scalar_one()
