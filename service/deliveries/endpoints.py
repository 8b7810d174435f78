"""`/jobs/{id}/deliveries`: whether whoever asked to be told of a job's end was told, and telling them again."""

from fastapi import APIRouter, Response

from service.context import ServiceDep
from service.deliveries.schemas import DeliveryOut, WebhookSecretOut, delivery_out
from service.pages import Page
from service.problem_docs import problems
from store import deliveries, jobs
from store.shared_secrets import webhook_secret

router = APIRouter(tags=["webhooks"])


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
        return WebhookSecretOut(secret=webhook_secret(session, service.tenant))
