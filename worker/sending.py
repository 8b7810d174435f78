"""One POST of a notice, signed as Standard Webhooks says, and what came of it."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from ipaddress import ip_address

import httpx
from standardwebhooks import Webhook

from store.deliveries import Attempt, Claimed
from store.errors import InvalidError
from worker.fetching.pinned import Pinned, client_options
from worker.fetching.public import is_public

_SECONDS = 15.0
"""For all of it, from the name to the status: who sends a byte now and then gets no more than others."""


def send(notice: Claimed, secrets: Sequence[str], *, private_too: bool) -> Attempt:
    """Send a notice once. Whatever the receiver does, this returns within seconds and says how it went.

    Args:
        secrets: the active ones of the notice's tenant, `whsec_…`; it is signed with each.
        private_too: receivers need not be at public addresses.
    """
    now, began = datetime.now(UTC), time.monotonic()
    status, error, retry_after = None, None, 0
    try:
        answer = asyncio.run(_post(notice, _signed(notice, secrets, now), private_too))
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


async def _resolved(url: str, private_too: bool) -> Pinned:
    """Its name resolved in a thread that nobody waits for: the system's resolver cannot be interrupted, and one that
    hangs would otherwise hold the delivery's place for as long as it likes."""
    found: Future[Pinned] = Future()
    found.set_running_or_notify_cancel()  # from here on it is the thread's

    def resolve() -> None:
        try:
            found.set_result(_pinned(url, private_too))
        except BaseException as error:  # noqa: BLE001  handed to whoever still waits
            found.set_exception(error)

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    return await asyncio.wrap_future(found)


def _signed(notice: Claimed, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "webhook-id": notice.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(notice.id, now, notice.body) for secret in secrets),
    }


async def _post(notice: Claimed, headers: dict[str, str], private_too: bool) -> httpx.Response:
    """The answer without its body, which nobody asked for."""
    async with asyncio.timeout(_SECONDS), httpx.AsyncClient(timeout=_SECONDS, **client_options()) as client:
        pinned = await _resolved(notice.url, private_too)
        request = client.stream(
            "POST",
            pinned.url,
            content=notice.body.encode(),
            headers=pinned.headers | headers,
            extensions=pinned.extensions,
        )
        async with request as answer:
            return answer
