"""`/jobs/{id}/deliveries`: whether whoever asked to be told of a job's end was told, and telling them again."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from service.context import Service, ServiceDep
from service.deliveries.schemas import DeliveryOut, WebhookSecretOut, delivery_out, secret_out
from service.pages import Page
from service.problem_docs import headers, problems
from service.repeats import REPLAYED, IdempotencyKey, Once, once
from store import deliveries, jobs, shared_secrets
from store.idempotency import Answer
from store.shared_secrets import webhook_secrets

router = APIRouter(tags=["webhooks"])

_KEPT = 24 * 3600
_LONGEST_KEPT = 30 * 24 * 3600


@router.get("/jobs/{job_id}/deliveries", responses=problems(404))
def list_deliveries(job_id: str, service: ServiceDep) -> Page[DeliveryOut]:
    """The notice of a job's end, and every attempt to deliver it: one at most, so always on one page."""
    with service.database.transaction() as session:
        jobs.get(session, job_id)
        items = [delivery_out(delivery) for delivery in deliveries.of_job(session, job_id)]
    return Page(items=items, next_cursor=None, total=len(items))


@router.post("/jobs/{job_id}/deliveries/{delivery_id}/replay", status_code=202, responses=problems(404))
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
    responses={201: {"headers": headers(False, Idempotency_Replayed=REPLAYED)}, **problems(409)},
)
async def rotate_webhook_secret(
    service: ServiceDep,
    keep_seconds: Annotated[
        int,
        Query(ge=0, le=_LONGEST_KEPT, description="for how long the present secret stays active beside the new one"),
    ] = _KEPT,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a new secret. Until the present one ends, notices carry a signature by each, so receivers change over in
    their own time; one that was active before both ends now. With `keep_seconds=0` the present one ends at once."""
    async with once(service, "POST /webhook-secret/rotate", idempotency_key) as rotation:
        return await run_in_threadpool(_rotate, service, keep_seconds, rotation)


def _rotate(service: Service, keep_seconds: int, rotation: Once) -> Response:
    content = {"keep_seconds": keep_seconds}
    if (answered := rotation.first_answer(content)) is not None:
        return answered
    with service.database.transaction() as session:
        made = secret_out(
            shared_secrets.rotate_webhook_secret(session, service.tenant, timedelta(seconds=keep_seconds))
        )
        answer = Answer(201, {"Cache-Control": "no-store"}, made.model_dump_json())
        return rotation.answer(session, content, answer)
