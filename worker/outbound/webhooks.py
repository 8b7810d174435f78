"""Notices of ended jobs: a sender in threads of its own, of which any number may run, and one POST of a notice, signed
as Standard Webhooks says."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from ipaddress import ip_address

import httpx
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from store import deliveries
from store.database import Database
from store.deliveries import Attempt, Claimed
from store.errors import InvalidError
from store.settings import Settings
from store.shared_secrets import webhook_secrets
from worker.outbound.addresses import Pinned, client_options, is_public

logger = logging.getLogger(__name__)

_AT_ONCE = 32
_AT_ONCE_OF_A_TENANT = 8
_AT_ONCE_TO_A_RECEIVER = 4  # of one tenant
"""So that a receiver that hangs holds up no other, and a tenant whose receivers all hang no other tenant."""

_LOOK_SECONDS = 1.0


def claim(database: Database, under_way: Sequence[Claimed]) -> Claimed | None:
    """A notice to deliver now beside those that are under way, if there is one: of the tenant that has fewest of them,
    and among equals of the one that has waited longest."""
    of_tenant = Counter(sent.tenant for sent in under_way)
    to_receiver = Counter((sent.tenant, sent.receiver) for sent in under_way)
    with database.transaction() as session:
        for tenant in sorted(deliveries.tenants_due(session), key=of_tenant.__getitem__):
            if of_tenant[tenant] >= _AT_ONCE_OF_A_TENANT:
                break  # and so have all that follow
            busy = [
                receiver
                for (owner, receiver), count in to_receiver.items()
                if owner == tenant and count >= _AT_ONCE_TO_A_RECEIVER
            ]
            claimed = deliveries.claim(session, tenant, busy)
            if claimed is not None:
                return claimed
    return None


def deliver(database: Database, settings: Settings, claimed: Claimed) -> None:
    """Send a notice and record how it went. If this process dies in between, it is sent again once its claim ends."""
    with database.transaction() as session:
        secrets = [active.secret for active in webhook_secrets(session, claimed.tenant)]
    attempt = send(claimed, secrets, private_too=settings.ecif_private_receivers)
    # The host alone: what follows in a URL may be a secret.
    logger.info(
        "%s: notice %s to %s: %s %s",
        claimed.job_id, claimed.id, claimed.receiver, attempt.status_code or "no answer", attempt.error or "",
    )  # fmt: skip
    with database.transaction() as session:
        deliveries.record(session, claimed, attempt)


class NoticeSender:
    """Looks for notices that are due, and sends each in a thread of its own: a receiver that is slow or dead delays
    neither whoever started this nor other receivers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._under_way: list[Claimed] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin nothing more. What is being sent is not waited for: it would be sent again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._closed:
            try:
                while self._begin_one():
                    pass
            except SQLAlchemyError as error:
                logger.warning("no notices looked for: %s", error)
            except Exception:
                logger.exception("notices go on")
            with self._changed:
                # Woken too when one has ended: what waited for its place may go.
                self._changed.wait(_LOOK_SECONDS)

    def _begin_one(self) -> bool:
        with self._changed:
            if self._closed or len(self._under_way) >= _AT_ONCE:
                return False
            under_way = list(self._under_way)
        claimed = claim(self._database, under_way)
        if claimed is None:
            return False
        with self._changed:
            self._under_way.append(claimed)
        threading.Thread(target=self._deliver, args=(claimed,), name=claimed.id, daemon=True).start()
        return True

    def _deliver(self, claimed: Claimed) -> None:
        try:
            deliver(self._database, self._settings, claimed)
        except Exception:
            logger.exception("notice %s: not recorded, it is sent again", claimed.id)
        finally:
            with self._changed:
                self._under_way.remove(claimed)
                self._changed.notify_all()


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
        retry_header = answer.headers.get("retry-after", "")
        retry_after = int(retry_header[:9]) if retry_header.isascii() and retry_header.isdecimal() else 0
    return Attempt(now.isoformat(), round(time.monotonic() - began, 3), status, error, retry_after)


def _pinned(url: str, private_too: bool) -> Pinned:
    pinned = Pinned(url, private_too=private_too)
    if pinned.url.scheme == "http" and is_public(ip_address(pinned.address)):
        raise InvalidError("not_https", "the receiver is at a public address: it is told by https only")
    return pinned


async def _resolved(url: str, private_too: bool) -> Pinned:
    """Its name resolved in a thread that nobody waits for: the system's resolver cannot be interrupted, and one that
    hangs would otherwise hold the delivery's place for as long as it likes."""
    pinned: Future[Pinned] = Future()
    pinned.set_running_or_notify_cancel()  # from here on it is the thread's

    def resolve() -> None:
        try:
            pinned.set_result(_pinned(url, private_too))
        except BaseException as error:  # noqa: BLE001  handed to whoever still waits
            pinned.set_exception(error)

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    return await asyncio.wrap_future(pinned)


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
