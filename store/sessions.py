"""Sessions of browsers: what a signed-in page shows in place of an API key. All SQL over them.

A session is 160 random bits, of which only the SHA-256 is stored, as of a key. It ends with its key, after a time, or
when its owner signs out (docs/decisions/0038-the-explorer.md).
"""

import hashlib
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store import api_keys
from store.nouns import random_text
from store.tables import ApiKey, BrowserSession

HOURS = 12
"""After which a browser signs in anew."""

_LETTERS = 32  # of 5 bits


def begin(session: Session, key: ApiKey) -> str:
    """The secret of a new session of a key. Sessions that have ended are deleted with it."""
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at < func.now()))
    secret = random_text(_LETTERS)
    ends = func.now() + timedelta(hours=HOURS)
    session.add(BrowserSession(digest=_digest(secret), key_id=key.id, expires_at=ends))
    session.flush()
    return secret


def key_of(session: Session, secret: str) -> ApiKey | None:
    """The active key that a session belongs to, while it lasts."""
    mine = (BrowserSession.digest == _digest(secret), BrowserSession.expires_at > func.now())
    return session.scalar(
        select(ApiKey).join(BrowserSession, BrowserSession.key_id == ApiKey.id).where(*mine, api_keys.is_active())
    )


def end(session: Session, secret: str) -> None:
    """End a session; ending it again changes nothing."""
    session.execute(delete(BrowserSession).where(BrowserSession.digest == _digest(secret)))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
