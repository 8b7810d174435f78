"""Secrets that all processes of one service share."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import Secret


def cursor_key(session: Session) -> bytes:
    """The key that page cursors are signed with."""
    return session.execute(select(Secret.value).where(Secret.name == "cursor")).scalar_one()
