"""Keys of requests: how long they are kept, and which are forgotten."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from store import idempotency
from store.database import Database
from store.errors import InProgressError
from store.idempotency import Answer, FirstAnswer, KeyClaim
from store.tables import IdempotencyKey

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ANSWER = Answer(202, {"Location": "/jobs/job_1"}, '{"id": "job_1"}')


@pytest.fixture
def claim(database: Database) -> Callable[..., Any]:
    def make(key: str = "k", lease: timedelta = MINUTE) -> Any:
        with database.transaction() as session:
            return idempotency.claim_key(session, "POST /jobs", key, lease)

    return make


def age(database: Database, by: timedelta) -> None:
    with database.transaction() as session:
        session.execute(update(IdempotencyKey).values(created_at=func.now() - by))


def purge(database: Database) -> int:
    with database.transaction() as session:
        return idempotency.purge_old(session)


def test_an_answer_is_found_again_with_its_fingerprint(claim: Callable[..., Any], database: Database) -> None:
    with database.transaction() as session:
        idempotency.finish(session, claim(), b"content", ANSWER)
    assert claim() == FirstAnswer(b"content", ANSWER)


def test_a_claim_holds_until_it_is_released_or_its_lease_has_run_out(
    claim: Callable[..., Any], database: Database
) -> None:
    held = claim()
    with pytest.raises(InProgressError):
        claim()
    with database.transaction() as session:
        idempotency.release(session, held)
    dead = claim(lease=timedelta(0))
    heir = claim()
    assert isinstance(heir, KeyClaim)
    with database.transaction() as session:
        assert not idempotency.renew(session, dead, MINUTE)
        assert idempotency.renew(session, heir, MINUTE)
    with pytest.raises(InProgressError), database.transaction() as session:
        idempotency.finish(session, dead, b"content", ANSWER)


def test_answers_are_kept_for_a_day_and_claims_for_as_long_as_they_are_held(
    claim: Callable[..., Any], database: Database
) -> None:
    with database.transaction() as session:
        idempotency.finish(session, claim("answered"), b"content", ANSWER)
    claim("dead", timedelta(0))
    claim("held")
    assert purge(database) == 0
    age(database, DAY + MINUTE)
    assert purge(database) == 2
    assert isinstance(claim("answered"), KeyClaim)
    with pytest.raises(InProgressError):
        claim("held")
