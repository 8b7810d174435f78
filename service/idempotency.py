"""`Idempotency-Key`: a request that is sent again is answered again, and done once (docs/decisions/0007-keys.md)."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Header, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.context import Service
from store import idempotency
from store.errors import InvalidError
from store.idempotency import Answer, FirstAnswer, KeyClaim

logger = logging.getLogger(__name__)

REPLAYED = "`true` where this answers a repeated request"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="any unique text; the same request under the same key is done once, and answered alike, for a day",
    ),
]


class IdempotentRequest:
    """A request that is done at most once under its key; one without a key is simply done."""

    def __init__(self, state: KeyClaim | FirstAnswer | None) -> None:
        self._state = state

    @property
    def repeated(self) -> bool:
        """Whether there is an answer already, for some content."""
        return isinstance(self._state, FirstAnswer)

    def first_answer(self, content: dict[str, Any]) -> Response | None:
        """The answer that this content had under this key before; `None` if it is to be done now.

        Raises:
            InvalidError: the key was used for other content.
        """
        if not isinstance(self._state, FirstAnswer):
            return None
        if self._state.fingerprint != _fingerprint(content):
            raise InvalidError("idempotency_key_reused", "this Idempotency-Key was used for another request")
        return _response(self._state.answer, {"Idempotency-Replayed": "true"})

    def record_answer(self, session: Session, content: dict[str, Any], answer: Answer) -> Response:
        """Record the answer under the key, in the transaction that does what was asked, and return it.

        Raises:
            InProgressError: the key was taken over meanwhile: the transaction must not be committed.
        """
        if isinstance(self._state, KeyClaim):
            idempotency.finish(session, self._state, _fingerprint(content), answer)
        return _response(answer, {})


@asynccontextmanager
async def idempotent_request(service: Service, endpoint: str, key: str | None) -> AsyncIterator[IdempotentRequest]:
    """Hold the key while the block lasts; a block that raises gives it back.

    Raises:
        InProgressError: another request holds it.
    """
    if key is None:
        yield IdempotentRequest(None)
        return
    lease = timedelta(seconds=service.settings.ecif_lease_seconds)
    state = await run_in_threadpool(_claim, service, endpoint, key, lease)
    if isinstance(state, FirstAnswer):
        yield IdempotentRequest(state)
        return
    renewing = asyncio.create_task(_renew(service, state, lease))
    try:
        yield IdempotentRequest(state)
    except BaseException:
        # Of what was answered already nothing is given back; what cannot be given back now runs out with its lease.
        with suppress(SQLAlchemyError):
            await run_in_threadpool(_release, service, state)
        raise
    finally:
        renewing.cancel()


async def _renew(service: Service, claim: KeyClaim, lease: timedelta) -> None:
    while True:
        await asyncio.sleep(lease.total_seconds() / 3)
        try:
            await run_in_threadpool(_renew_claim, service, claim, lease)
        except SQLAlchemyError as error:
            logger.warning("claim of an Idempotency-Key not renewed: %s", error)


def _claim(service: Service, endpoint: str, key: str, lease: timedelta) -> KeyClaim | FirstAnswer:
    with service.database.transaction() as session:
        return idempotency.claim_key(session, endpoint, key, lease)


def _renew_claim(service: Service, claim: KeyClaim, lease: timedelta) -> None:
    with service.database.transaction() as session:
        idempotency.renew(session, claim, lease)


def _release(service: Service, claim: KeyClaim) -> None:
    with service.database.transaction() as session:
        idempotency.release(session, claim)


def _fingerprint(content: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    media_type = "application/json" if answer.body else None
    return Response(answer.body, status_code=answer.status, headers=answer.headers | headers, media_type=media_type)
