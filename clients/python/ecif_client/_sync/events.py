"""A job's progress as it happens (server-sent events)."""

import json
from collections.abc import Iterator

from httpx_sse import EventSource

from ecif_client._sync.connection import Connection
from ecif_client.answers import Event
from ecif_client.errors import ClientError
from ecif_client.waiting import pause

_SECONDS_BETWEEN = 2.0


def follow(connection: Connection, path: str) -> Iterator[Event]:
    """Where a job stands now, then whenever that changes, until it has ended. The service ends a stream after some
    minutes, and networks do: it is connected again."""
    last, failures = "", 0
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        rest = _SECONDS_BETWEEN
        try:
            with connection.stream("GET", path, headers=headers) as answer:
                if answer.status_code == 204:
                    return
                for event in EventSource(answer).iter_sse():
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
        pause(rest)
