"""`/jobs/{id}/events`: progress as it happens, by server-sent events. Polling stays the authority."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from service.context import Service, ServiceDep
from service.datasets.schemas import ErrorOut
from service.errors import problem_docs
from service.jobs.schemas import ProgressOut, job_out
from store import jobs
from store.errors import NotFoundError
from store.states import JobStatus

router = APIRouter(tags=["jobs"])

_QUIET_SECONDS = 15.0  # after which a comment keeps whatever is in between from hanging up
_RETRY_MILLISECONDS = 2000


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["progress", "end"]},
        "id": {"type": "string", "description": "of the state that the event tells"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "`id`, `status`, `phase`, `progress` and `error` of the job",
        },
        "retry": {"type": "integer"},
    },
}


class EventOut(BaseModel):
    """What an event tells, as a job does."""

    id: str
    status: JobStatus
    phase: str | None
    progress: ProgressOut | None
    error: ErrorOut | None


def _followed(job_id: str, service: ServiceDep) -> Iterator[EventOut]:
    """The job as it is now, with a stream counted as open until the answer has ended, however it ends."""
    state = _look(service, job_id)
    with service.streams.one_more(service.tenant):
        yield state


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,  # not an endpoint that yields: those cannot answer 204
    responses={
        200: {
            "content": {"text/event-stream": {"itemSchema": _EVENT}},
            "description": "events `progress`, and at the end of the job one `end`",
        },
        204: {"description": "the job has ended, and `Last-Event-ID` has seen it: do not connect again"},
        **problem_docs(404),
    },
)
async def follow_job(
    service: ServiceDep,
    state: Annotated[EventOut, Depends(_followed)],
    last_event_id: Annotated[str | None, Header(description="of the last event that was seen")] = None,
) -> Response:
    """Where the job stands now, and then whenever that changes, until it ends. A stream ends by itself after some
    minutes, and when the service does: connect again with `Last-Event-ID`, as browsers do on their own."""
    if state.status.ended and last_event_id == _event_id(state):
        return Response(status_code=204)
    return EventSourceResponse(
        _events(service, state, last_event_id),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"},
    )


async def _events(service: Service, state: EventOut, seen: str | None) -> AsyncIterator[bytes]:
    """No connection to the database is held between two looks."""
    settings = service.settings
    sent_at = time.monotonic()
    ends_at = sent_at + settings.ecif_stream_seconds
    yield format_sse_event(retry=_RETRY_MILLISECONDS)
    while True:
        now = _event_id(state)
        if now != seen:
            kind = "end" if state.status.ended else "progress"
            yield format_sse_event(event=kind, id=now, data_str=state.model_dump_json())
            seen, sent_at = now, time.monotonic()
        elif time.monotonic() - sent_at > _QUIET_SECONDS:
            yield KEEPALIVE_COMMENT
            sent_at = time.monotonic()
        if state.status.ended or service.streams.closing.is_set() or time.monotonic() > ends_at:
            return
        await asyncio.sleep(settings.ecif_heartbeat_seconds)
        try:
            state = await run_in_threadpool(_look, service, state.id)
        except NotFoundError:
            return  # deleted meanwhile


def _look(service: Service, job_id: str) -> EventOut:
    with service.database.transaction() as session:
        job = job_out(session, jobs.glance(session, job_id))
        return EventOut(**{name: getattr(job, name) for name in EventOut.model_fields})


def _event_id(state: EventOut) -> str:
    """The same for the same state, whichever process reads it."""
    return sha256(state.model_dump_json().encode()).hexdigest()[:16]
