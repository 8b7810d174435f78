"""Which verdicts of two jobs differ: the pairs that one flags and the other, which has scored them too, does not.

Pairs are the same where their keys are. Whatever differs is flagged by one of the two, so that only what is flagged is
walked over, in rank order, and every other row is found by index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import and_, select
from sqlalchemy.orm import Session, aliased

from store import results
from store.tables import Pair, Result

Verdict = Literal["flagged", "cleared"]
VERDICTS: tuple[Verdict, ...] = ("flagged", "cleared")
"""In the order of pages: pairs that are flagged now and were not, then those that were and are not any more."""


@dataclass(frozen=True)
class Judged:
    """A job that has succeeded: its number, that of its dataset, and that of the partition of its results."""

    job: int
    dataset: int
    apart: int


@dataclass(frozen=True)
class Change:
    """A pair whose verdict differs, beside what both jobs say of it. caption: in the dataset of the later one."""

    verdict: Verdict
    key: str
    caption: str | None
    rank: int
    suspicion: float | None
    rank_before: int
    suspicion_before: float | None

    @property
    def place(self) -> tuple[Verdict, int]:
        """Where a page that ends here ends."""
        return self.verdict, self.rank if self.verdict == "flagged" else self.rank_before


def page(
    session: Session, now: Judged, before: Judged, *, limit: int, after: tuple[Verdict, int] | None
) -> list[Change]:
    """One page of the changes from `before` to `now`: newly flagged pairs in the rank order of `now`, and then cleared
    ones in that of `before`."""
    changes: list[Change] = []
    for verdict in VERDICTS[VERDICTS.index(after[0]) if after else 0 :]:
        if len(changes) < limit:
            rank = after[1] if after and after[0] == verdict else 0
            changes += _of(session, now, before, verdict, limit - len(changes), rank)
    return changes


def _of(session: Session, now: Judged, before: Judged, verdict: Verdict, limit: int, after: int) -> Sequence[Change]:
    flagging, other = (now, before) if verdict == "flagged" else (before, now)
    mine, theirs, here, there = aliased(Result), aliased(Result), aliased(Pair), aliased(Pair)
    rows = session.execute(
        select(here.key, here.caption, there.caption, mine.rank, mine.suspicion, theirs.rank, theirs.suspicion)
        .join(here, and_(here.dataset == flagging.dataset, here.position == mine.position))
        .join(there, and_(there.dataset == other.dataset, there.key == here.key, there.error.is_(None)))
        .join(theirs, and_(theirs.apart == other.apart, theirs.job == other.job, theirs.position == there.position))
        .where(mine.apart == flagging.apart, mine.job == flagging.job, mine.flagged.is_(True), mine.rank > after)
        .where(theirs.flagged.is_(False))
        .order_by(mine.rank)
        .limit(limit)
    )
    return [
        Change(verdict, key, caption, rank, suspicion, rank_of_other, suspicion_of_other)
        if verdict == "flagged"
        else Change(verdict, key, caption_of_other, rank_of_other, suspicion_of_other, rank, suspicion)
        for key, caption, caption_of_other, rank, suspicion, rank_of_other, suspicion_of_other in rows
        if key is not None  # never: keys that are equal are there
    ]


def judged(session: Session, job: int, dataset: int, apart: int) -> Judged | None:
    """A job whose results have verdicts; `None` where it flags nothing, as it looks for nothing wrong."""
    any_ = select(Result.rank).where(results.of(session, job), Result.flagged.is_not(None)).limit(1)
    return None if session.scalar(any_) is None else Judged(job, dataset, apart)
