"""What people say of the pairs of a job: all SQL over their marks.

A pair may have two, one made where the scores were in sight and one made on the random sample, which shows none: only
the latter say anything about pairs that nobody picked (docs/decisions/0038-the-explorer.md).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any

from sqlalchemy import ARRAY, BigInteger, and_, any_, cast, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store import results
from store.tables import Job, Mark, Pair, Result

MOST_SAMPLED = 2000
"""Pairs that the random sample of a job offers at most."""


class Verdict(StrEnum):
    """What a person says of a pair."""

    KEEP = "keep"
    DROP = "drop"
    RELABEL = "relabel"


@dataclass(frozen=True)
class MarkedPair:
    """A mark, and the key and caption of the pair that it is about."""

    mark: Mark
    key: str | None
    caption: str | None


def put(
    session: Session,
    job: int,
    position: int,
    *,
    verdict: Verdict,
    caption: str | None,
    marked_by: str | None,
    sampled: bool,
) -> None:
    """Say something of a pair, in place of what was said before."""
    said = {"verdict": verdict.value, "caption": caption, "marked_by": marked_by}
    statement = insert(Mark).values(job=job, position=position, sampled=sampled, **said)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Mark.job, Mark.position, Mark.sampled], set_={**said, "marked_at": func.now()}
        )
    )


def remove(session: Session, job: int, position: int, sampled: bool) -> None:
    """Take back what was said of a pair; doing so again changes nothing."""
    session.execute(delete(Mark).where(Mark.job == job, Mark.position == position, Mark.sampled.is_(sampled)))


def get(session: Session, job: int, position: int, sampled: bool) -> Mark:
    """One mark, which is there."""
    return session.get_one(Mark, (job, position, sampled), populate_existing=True)


def at(session: Session, job: int, positions: Sequence[int]) -> dict[int, Mark]:
    """What was last said of the pairs at these positions, by position; those without a mark are left out."""
    wanted = Mark.position == any_(cast(list(positions), ARRAY(BigInteger)))
    rows = session.scalars(select(Mark).where(Mark.job == job, wanted).order_by(Mark.marked_at))
    return {mark.position: mark for mark in rows}


def page(
    session: Session, job: int, dataset: int, *, limit: int, after: tuple[int, bool] | None
) -> Sequence[MarkedPair]:
    """Marks by the position of their pairs, from just after `after`, each with its pair."""
    there = and_(Pair.dataset == dataset, Pair.position == Mark.position)
    query = select(Mark, Pair.key, Pair.caption).outerjoin(Pair, there).where(Mark.job == job)
    if after is not None:
        query = query.where(tuple_(Mark.position, Mark.sampled) > tuple_(*after))
    rows = session.execute(query.order_by(Mark.position, Mark.sampled).limit(limit))
    return [MarkedPair(*row) for row in rows]


def count(session: Session, job: int) -> int:
    """How many marks a job has."""
    return session.scalar(select(func.count()).select_from(Mark).where(Mark.job == job)) or 0


def state(session: Session, job: int) -> str:
    """The same text as long as no mark of a job changes."""
    counted = select(func.count(), func.max(Mark.marked_at)).where(Mark.job == job)
    number, latest = session.execute(counted).one()
    return f"{number} {latest.isoformat()}" if number else ""


def purge(session: Session, job: int) -> None:
    """Delete all of a deleted job: people made them, so they are few."""
    session.execute(delete(Mark).where(Mark.job == job))


def sampled_ranks(job_id: str, count: int) -> Iterator[int]:
    """Distinct ranks from 1 to `count`, drawn uniformly from the id of the job, so that they are the same each time:
    `MOST_SAMPLED` of them, or all where there are fewer."""
    drawn: set[int] = set()
    turn = 0
    while len(drawn) < min(MOST_SAMPLED, count):
        digest = hashlib.sha256(f"sample {turn} of {job_id}".encode()).digest()
        rank = int.from_bytes(digest[:16]) % count + 1
        turn += 1
        if rank not in drawn:
            drawn.add(rank)
            yield rank


@dataclass(frozen=True)
class Offered:
    """A pair of the random sample.

    place: from 1 on. pixels: the longer side of its image. verdict: what was said of it as one of the sample.
    """

    place: int
    position: int
    key: str | None
    caption: str | None
    has_image: bool
    pixels: int | None
    verdict: str | None
    new_caption: str | None


def sample(session: Session, job: Job, dataset: int, *, first: int, limit: int) -> list[Offered]:
    """Pairs of the random sample from the place `first` (counted from 0) on, in the order in which they are to be
    judged. Nothing of their scores comes along."""
    ranks = list(sampled_ranks(job.id, job.result_count))[first : first + limit]
    rows = _of_ranks(session, job, dataset, ranks)
    return [Offered(first + n + 1, *rows[rank]) for n, rank in enumerate(ranks) if rank in rows]


def in_sample(session: Session, job: Job, position: int) -> bool:
    """Whether a pair is of the random sample."""
    mine = select(Result.rank).where(results.of(session, job.number), Result.position == position)
    ranks = set(session.scalars(mine))
    return any(rank in ranks for rank in sampled_ranks(job.id, job.result_count))


def _of_ranks(session: Session, job: Job, dataset: int, ranks: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    said = and_(Mark.job == job.number, Mark.position == Result.position, Mark.sampled.is_(True))
    query = (
        select(
            Result.rank,
            Result.position,
            Pair.key,
            Pair.caption,
            Pair.image_length.is_not(None),
            func.greatest(Pair.width, Pair.height),
            Mark.verdict,
            Mark.caption,
        )
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .outerjoin(Mark, said)
        .where(results.of(session, job.number), Result.rank == any_(cast(list(ranks), ARRAY(BigInteger))))
    )
    return {row[0]: tuple(row[1:]) for row in session.execute(query)}


def judged(session: Session, job: Job, dataset: int) -> list[Offered]:
    """The pairs of the random sample from its beginning up to the first that nobody has judged there: which pairs
    these are, nobody chose."""
    if not session.scalar(select(select(Mark.job).where(Mark.job == job.number, Mark.sampled).exists())):
        return []
    offered = sample(session, job, dataset, first=0, limit=MOST_SAMPLED)
    return list(takewhile(lambda pair: pair.verdict is not None, offered))


def clean_rows(session: Session, job: Job, dataset: int) -> list[int]:
    """The rows, in the dataset, of the pairs that were kept on the random sample, as far as it was judged without a
    gap."""
    right = [pair.position for pair in judged(session, job, dataset) if pair.verdict == Verdict.KEEP]
    there = Pair.position == any_(cast(right, ARRAY(BigInteger)))
    rows = session.scalars(select(Pair.row).where(Pair.dataset == dataset, there, Pair.row.is_not(None)))
    return sorted(row for row in rows if row is not None)
