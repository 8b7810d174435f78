"""Secrets that all processes of one service share, and those that the notices of a tenant are signed with."""

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from store.database import one_at_a_time
from store.tables import Secret, WebhookSecret

_BYTES = 32


def cursor_key(session: Session) -> bytes:
    """The key that page cursors are signed with."""
    return session.execute(select(Secret.value).where(Secret.name == "cursor")).scalar_one()


@dataclass(frozen=True)
class ActiveSecret:
    """A secret in the form of Standard Webhooks (`whsec_` and base64), and when it ends; null of the newest."""

    secret: str
    expires_at: datetime | None


def webhook_secrets(session: Session, tenant: str) -> list[ActiveSecret]:
    """What the notices of a tenant are signed with now, the newest first: one, or two after a rotation."""
    rows = session.scalars(
        select(WebhookSecret).where(WebhookSecret.tenant == tenant, _active()).order_by(WebhookSecret.id.desc())
    )
    return [ActiveSecret(row.secret, row.expires_at) for row in rows] or [ActiveSecret(_derived(session, tenant), None)]


def rotate_webhook_secret(session: Session, tenant: str, grace: timedelta) -> list[ActiveSecret]:
    """Make a new secret; the one until now stays active for as long as `kept`, and the one before that ends now."""
    one_at_a_time(session, tenant)
    newest, *_ = webhook_secrets(session, tenant)
    mine = WebhookSecret.tenant == tenant
    session.execute(delete(WebhookSecret).where(mine, WebhookSecret.expires_at.is_not(None)))
    ending = update(WebhookSecret).where(mine).values(expires_at=func.now() + grace).returning(WebhookSecret.id)
    if session.scalar(ending) is None:  # what is derived gets a row, so that it can end
        session.add(WebhookSecret(tenant=tenant, secret=newest.secret, expires_at=func.now() + grace))
        session.flush()
    session.add(WebhookSecret(tenant=tenant, secret=_written(secrets.token_bytes(_BYTES))))
    session.flush()
    return webhook_secrets(session, tenant)


def _active() -> ColumnElement[bool]:
    return or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > func.now())


def _derived(session: Session, tenant: str) -> str:
    """Of a tenant that has changed nothing yet, so that there is nothing to make with it.

    No cursor is signed over these words (`service/pagination.py` signs a digest and what follows it).
    """
    return _written(hmac.digest(cursor_key(session), b"webhooks of tenant " + tenant.encode(), "sha256"))


def _written(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()
