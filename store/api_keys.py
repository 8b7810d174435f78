"""API keys: all SQL over them. A key is 160 random bits, so its SHA-256 needs no salt and cannot be turned round."""

import hashlib
import re
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from store.errors import InvalidError, NotFoundError
from store.nouns import new_id, random_text
from store.tables import ApiKey

_SECRET_LETTERS = 32  # of 5 bits
_SHOWN_LETTERS = len("ecif_") + 6
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def create(session: Session, tenant: str, name: str | None) -> tuple[ApiKey, str]:
    """A new key of a tenant, and its secret, which cannot be had again.

    Raises:
        InvalidError: that is no name for a tenant.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidError("bad_tenant", "a tenant is named by up to 63 of a-z, 0-9, _ and -", "tenant")
    secret = "ecif_" + random_text(_SECRET_LETTERS)
    key = ApiKey(id=new_id("key"), tenant=tenant, name=name, prefix=secret[:_SHOWN_LETTERS], digest=_digest(secret))
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def revoke(session: Session, id_or_prefix: str) -> ApiKey:
    """End a key, at once and for ever. Ending it again changes nothing.

    Raises:
        NotFoundError: there is none of that id, or not exactly one of that prefix.
    """
    named = or_(ApiKey.id == id_or_prefix, ApiKey.prefix == id_or_prefix)
    keys = session.scalars(select(ApiKey).where(named).with_for_update()).all()
    if len(keys) != 1:
        raise NotFoundError("key_not_found", f"{len(keys)} keys are called {id_or_prefix!r}: name one by its id")
    session.execute(
        update(ApiKey).where(ApiKey.id == keys[0].id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    )
    session.refresh(keys[0])
    return keys[0]


def every(session: Session) -> Sequence[ApiKey]:
    """All keys, the revoked too, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()


def find(session: Session, secret: str) -> ApiKey | None:
    """The active key of which this is the secret."""
    return session.scalar(select(ApiKey).where(ApiKey.digest == _digest(secret), is_active()))


def is_active() -> ColumnElement[bool]:
    """The condition for a key that lets somebody in."""
    return ApiKey.revoked_at.is_(None)


def called(key: ApiKey) -> str:
    """What people know a key by: its name, or its first letters."""
    return key.name or f"{key.prefix}…"


def any_made(session: Session) -> bool:
    """Whether a key has to be shown. The revoked count: ending the last key must not open the doors."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
