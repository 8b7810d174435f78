"""A job's progress as it happens (server-sent events)."""

import json
from collections.abc import AsyncIterator

from httpx_sse import EventSource

from ecif_client._async.connection import AsyncConnection
from ecif_client.answers import Event
from ecif_client.errors import ClientError
from ecif_client.waiting import pause_async

_SECONDS_BETWEEN = 2.0


async def follow(connection: AsyncConnection, path: str) -> AsyncIterator[Event]:
    """Where a job stands now, then whenever that changes, until it has ended. The service ends a stream after some
    minutes, and networks do: it is connected again."""
    last, failures = "", 0
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        rest = _SECONDS_BETWEEN
        try:
            async with connection.stream("GET", path, headers=headers) as answer:
                if answer.status_code == 204:
                    return
                async for event in EventSource(answer).aiter_sse():
                    if not event.data:  # it says only how soon to connect again
                        continue
                    failures, last = 0, event.id
                    yield json.loads(event.data)
                    if event.event == "end":
                        return
        except ClientError as error:
            failures += 1
            if not error.again or failures >= connection.tries:
                raise
            rest = error.retry_after or rest
        await pause_async(rest)
