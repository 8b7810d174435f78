"""`/jobs/{id}/deliveries`: the webhook notice of a job's end, the attempts to deliver it, and sending it again."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from service.context import Service, ServiceDep
from service.errors import header_docs, problem_docs
from service.idempotency import REPLAYED, IdempotencyKey, IdempotentRequest, idempotent_request
from service.pagination import Page
from store import deliveries, jobs, shared_secrets
from store.idempotency import Answer
from store.references import shown
from store.shared_secrets import ActiveSecret, webhook_secrets
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


router = APIRouter(tags=["webhooks"])

_OVERLAP = 24 * 3600
_LONGEST_OVERLAP = 30 * 24 * 3600


@router.get("/jobs/{job_id}/deliveries", responses=problem_docs(404))
def list_deliveries(job_id: str, service: ServiceDep) -> Page[DeliveryOut]:
    """The notice of a job's end, and every attempt to deliver it: one at most, so always on one page."""
    with service.database.transaction() as session:
        jobs.get(session, job_id)
        items = [delivery_out(delivery) for delivery in deliveries.of_job(session, job_id)]
    return Page(items=items, next_cursor=None, total=len(items))


@router.post("/jobs/{job_id}/deliveries/{delivery_id}/replay", status_code=202, responses=problem_docs(404))
def replay_delivery(job_id: str, delivery_id: str, service: ServiceDep) -> DeliveryOut:
    """Send it again, whether it was delivered, given up or is waiting: the same id and content, signed anew."""
    with service.database.transaction() as session:
        jobs.get(session, job_id)
        return delivery_out(deliveries.replay(session, job_id, delivery_id))


@router.get("/webhook-secret")
def get_webhook_secret(response: Response, service: ServiceDep) -> WebhookSecretOut:
    """What this tenant's receivers verify notices with."""
    response.headers["Cache-Control"] = "no-store"
    with service.database.transaction() as session:
        return secret_out(webhook_secrets(session, service.tenant))


@router.post(
    "/webhook-secret/rotate",
    status_code=201,
    response_model=WebhookSecretOut,
    responses={201: {"headers": header_docs(False, Idempotency_Replayed=REPLAYED)}, **problem_docs(409)},
)
async def rotate_webhook_secret(
    service: ServiceDep,
    keep_seconds: Annotated[
        int,
        Query(ge=0, le=_LONGEST_OVERLAP, description="for how long the present secret stays active beside the new one"),
    ] = _OVERLAP,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a new secret. Until the present one ends, notices carry a signature by each, so receivers change over in
    their own time; one that was active before both ends now. With `keep_seconds=0` the present one ends at once."""
    async with idempotent_request(service, "POST /webhook-secret/rotate", idempotency_key) as idempotent:
        return await run_in_threadpool(_rotate, service, keep_seconds, idempotent)


def _rotate(service: Service, keep_seconds: int, idempotent: IdempotentRequest) -> Response:
    content = {"keep_seconds": keep_seconds}
    if (answered := idempotent.first_answer(content)) is not None:
        return answered
    with service.database.transaction() as session:
        made = secret_out(
            shared_secrets.rotate_webhook_secret(session, service.tenant, timedelta(seconds=keep_seconds))
        )
        answer = Answer(201, {"Cache-Control": "no-store"}, made.model_dump_json())
        return idempotent.record_answer(session, content, answer)
