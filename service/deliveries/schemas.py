"""What the notice of a job's end looks like from outside."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from store.references import shown
from store.shared_secrets import ActiveSecret
from store.states import DeliveryStatus
from store.tables import Delivery


class AttemptOut(BaseModel):
    """One sending."""

    at: datetime
    seconds: float
    status_code: int | None = Field(description="of the answer; null where none came")
    error: str | None = Field(description="why it does not count as delivered, where the status code does not say it")


class DeliveryOut(BaseModel):
    """The notice of a job's end, on its way to `notify.url`."""

    id: str = Field(description="the header webhook-id, the same each time it is sent")
    event: str = Field(description="job.succeeded, job.failed or job.cancelled")
    url: str = Field(description="without its query")
    status: DeliveryStatus
    next_attempt_at: datetime | None = Field(description="null unless it is waiting")
    attempts: list[AttemptOut] = Field(description="the latest, oldest first")
    created_at: datetime


class EndingSecretOut(BaseModel):
    """A secret that a rotation has replaced."""

    secret: str
    expires_at: datetime


class WebhookSecretOut(BaseModel):
    """What notices are signed with."""

    secret: str = Field(description="`whsec_` and base64, as the libraries of Standard Webhooks take it")
    previous: EndingSecretOut | None = Field(
        description="the one before, until it ends: notices carry a signature by each"
    )


def secret_out(active: Sequence[ActiveSecret]) -> WebhookSecretOut:
    """The outside form of a tenant's active secrets, the newest first."""
    newest, *before = active
    previous = None
    if before and before[0].expires_at is not None:
        previous = EndingSecretOut(secret=before[0].secret, expires_at=before[0].expires_at)
    return WebhookSecretOut(secret=newest.secret, previous=previous)


def delivery_out(delivery: Delivery) -> DeliveryOut:
    """The outside form of a row."""
    waiting = delivery.status == DeliveryStatus.WAITING
    return DeliveryOut(
        id=delivery.id,
        event=delivery.event,
        url=shown(delivery.url),
        status=DeliveryStatus(delivery.status),
        next_attempt_at=delivery.not_before if waiting else None,
        attempts=[AttemptOut(**attempt) for attempt in delivery.attempts],
        created_at=delivery.created_at,
    )
