"""Secrets that all processes of one service share."""

import base64
import hmac

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import Secret


def cursor_key(session: Session) -> bytes:
    """The key that page cursors are signed with."""
    return session.execute(select(Secret.value).where(Secret.name == "cursor")).scalar_one()


def webhook_secret(session: Session, tenant: str) -> str:
    """What a tenant's receivers check notices with, in the form of Standard Webhooks: `whsec_` and base64.

    Derived, so that there is nothing more to keep; no cursor is signed over these words (`service/cursors.py` signs a
    digest and what follows it).
    """
    derived = hmac.digest(cursor_key(session), b"webhooks of tenant " + tenant.encode(), "sha256")
    return "whsec_" + base64.b64encode(derived).decode()
