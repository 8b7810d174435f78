"""POSTs that take either JSON or a form with files: which of the two, and the form behind the tenant's limits."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service.context import Service
from service.problems import MediaTypeError
from service.repeats import Once
from service.uploads import Form, declared_length, read_form, refuse_large

_JSON, _FORM = "application/json", "multipart/form-data"


def is_json(request: Request, otherwise: str) -> bool:
    """Whether the body is JSON; else it is a form.

    Raises:
        MediaTypeError: it is neither; `otherwise` says what to send.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_JSON, _FORM):
        raise MediaTypeError("unsupported_media_type", otherwise)
    return media_type == _JSON


@asynccontextmanager
async def staged_form(
    request: Request, service: Service, request_once: Once, *, files: Sequence[str], fields: Sequence[str]
) -> AsyncIterator[Form]:
    """The form, its files staged for as long as the block lasts.

    Nobody's limits stand in the way of a repeat, which keeps nothing.

    Raises:
        LimitError, and whatever `read_form` raises.
    """
    room = None if request_once.repeated else await run_in_threadpool(service.limits.room, service.database)
    most, declared = service.settings.ecif_max_upload_bytes, declared_length(request)
    refuse_large(request, most)
    with service.incoming.counted(service.tenant, room, declared) as count, service.blobs.staging() as folder:
        yield await read_form(request, folder, files=files, fields=fields, max_bytes=most, count=count)
