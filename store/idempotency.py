"""Idempotency keys: all SQL over them (docs/decisions/0007-keys.md).

A request claims its key for a short lease, renews it while it works, and leaves its answer in the transaction that
makes the job. So a crash leaves either nothing but a claim that runs out, or the job and the answer together.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.database import tenant_of
from store.errors import InProgressError
from store.tables import IdempotencyKey

RETENTION = timedelta(hours=24)
"""How long an answer can be had again at least."""

_PURGE_ROWS = 20_000


@dataclass(frozen=True)
class Answer:
    """What was answered: enough to answer it again, to the byte."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class FirstAnswer:
    """The answer that a key has had, and the fingerprint of the content that it was for."""

    fingerprint: bytes
    answer: Answer


@dataclass(frozen=True)
class KeyClaim:
    """The right to answer a key, until the lease runs out or another takes it over."""

    tenant: str
    endpoint: str
    key_digest: bytes
    token: str


def claim_key(session: Session, endpoint: str, key: str, lease: timedelta) -> KeyClaim | FirstAnswer:
    """Claim a key for one request, or find what it was answered. Commit at once: others must see the claim.

    Raises:
        InProgressError: another request with this key is being worked on.
    """
    tenant = tenant_of(session)
    mine = KeyClaim(tenant, endpoint, hashlib.sha256(key.encode()).digest(), secrets.token_hex(16))
    until = func.clock_timestamp() + lease
    taken = session.scalar(
        insert(IdempotencyKey)
        .values(tenant=tenant, endpoint=endpoint, key_digest=mine.key_digest, claim=mine.token, lease_until=until)
        .on_conflict_do_update(
            index_elements=["tenant", "endpoint", "key_digest"],
            set_={"claim": mine.token, "lease_until": until, "created_at": func.now()},
            where=and_(IdempotencyKey.status.is_(None), IdempotencyKey.lease_until < func.clock_timestamp()),
        )
        .returning(IdempotencyKey.claim)
    )
    if taken is not None:
        return mine
    row = session.get(IdempotencyKey, (tenant, endpoint, mine.key_digest))
    if row is None or row.status is None or row.fingerprint is None:
        raise _in_progress()
    return FirstAnswer(row.fingerprint, Answer(row.status, row.headers or {}, row.body or ""))


def renew(session: Session, claim: KeyClaim, lease: timedelta) -> bool:
    """Hold a claim for longer; false when it is somebody else's by now."""
    until = func.clock_timestamp() + lease
    return _touched(session, update(IdempotencyKey).where(_held(claim)).values(lease_until=until))


def finish(session: Session, claim: KeyClaim, fingerprint: bytes, answer: Answer) -> None:
    """Leave the answer, in the transaction that did what was asked.

    Raises:
        InProgressError: another request has taken the key over: what this one did must not be committed.
    """
    done = (
        update(IdempotencyKey)
        .where(_held(claim))
        .values(fingerprint=fingerprint, status=answer.status, headers=answer.headers, body=answer.body)
    )
    if not _touched(session, done):
        raise _in_progress()


def release(session: Session, claim: KeyClaim) -> None:
    """Give a claim back unanswered: the request was refused, and may be sent again, mended."""
    session.execute(delete(IdempotencyKey).where(_held(claim)))


def purge_old(session: Session, age: timedelta = RETENTION) -> int:
    """Forget some of the keys that were claimed longer ago than `age`; return how many."""
    key = tuple_(IdempotencyKey.tenant, IdempotencyKey.endpoint, IdempotencyKey.key_digest)
    old = (
        select(IdempotencyKey.tenant, IdempotencyKey.endpoint, IdempotencyKey.key_digest)
        .where(
            IdempotencyKey.created_at < func.now() - age,
            # An upload may take longer than that.
            or_(IdempotencyKey.status.is_not(None), IdempotencyKey.lease_until < func.now()),
        )
        .limit(_PURGE_ROWS)
        .with_for_update(skip_locked=True)
    )
    gone = session.execute(delete(IdempotencyKey).where(key.in_(old)))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def _held(claim: KeyClaim) -> ColumnElement[bool]:
    return and_(
        IdempotencyKey.tenant == claim.tenant,
        IdempotencyKey.endpoint == claim.endpoint,
        IdempotencyKey.key_digest == claim.key_digest,
        IdempotencyKey.claim == claim.token,
        IdempotencyKey.status.is_(None),
    )


def _touched(session: Session, statement: object) -> bool:
    return bool(session.execute(statement).rowcount)  # type: ignore[call-overload]


def _in_progress() -> InProgressError:
    return InProgressError("request_in_progress", "a request with this Idempotency-Key is being worked on: ask again")
