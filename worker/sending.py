"""One POST of a notice, signed as Standard Webhooks says, and what came of it."""

import asyncio
import time
from datetime import UTC, datetime
from ipaddress import ip_address

import httpx
from standardwebhooks import Webhook

from store.deliveries import Attempt, Claimed
from store.errors import InvalidError
from worker.fetching.pinned import Pinned, client_options
from worker.fetching.public import is_public

_SECONDS = 15.0
"""For all of it, from the connection to the status: who sends a byte now and then gets no more than others."""


def send(notice: Claimed, secret: str, *, private_too: bool) -> Attempt:
    """Send a notice once. Whatever the receiver does, this returns within seconds and says how it went.

    Args:
        secret: of the notice's tenant, `whsec_…`.
        private_too: receivers need not be at public addresses.
    """
    now, began = datetime.now(UTC), time.monotonic()
    status, error, retry_after = None, None, 0
    try:
        pinned = _pinned(notice.url, private_too)
        answer = asyncio.run(_post(pinned, notice, _signed(notice, secret, now)))
    except InvalidError as refused:
        error = refused.message
    except (TimeoutError, httpx.TimeoutException):
        error = f"no answer within {_SECONDS:g} seconds"
    except Exception as broken:  # noqa: BLE001  whatever a URL or a receiver brings about is an attempt that failed
        # Of what a server says that speaks another protocol nothing is told.
        error = str(broken) if isinstance(broken, httpx.ConnectError) else type(broken).__name__
    else:
        status = answer.status_code
        if answer.is_redirect:
            error = "the receiver answers with a redirect: name the address it leads to"
        asked = answer.headers.get("retry-after", "")
        retry_after = int(asked[:9]) if asked.isascii() and asked.isdecimal() else 0
    return Attempt(now.isoformat(), round(time.monotonic() - began, 3), status, error, retry_after)


def _pinned(url: str, private_too: bool) -> Pinned:
    pinned = Pinned(url, private_too=private_too)
    if pinned.url.scheme == "http" and is_public(ip_address(pinned.address)):
        raise InvalidError("not_https", "the receiver is at a public address: it is told by https only")
    return pinned


def _signed(notice: Claimed, secret: str, now: datetime) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "webhook-id": notice.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(notice.id, now, notice.body),
    }


async def _post(pinned: Pinned, notice: Claimed, headers: dict[str, str]) -> httpx.Response:
    """The answer without its body, which nobody asked for."""
    async with asyncio.timeout(_SECONDS), httpx.AsyncClient(timeout=_SECONDS, **client_options()) as client:
        request = client.stream(
            "POST",
            pinned.url,
            content=notice.body.encode(),
            headers=pinned.headers | headers,
            extensions=pinned.extensions,
        )
        async with request as answer:
            return answer
