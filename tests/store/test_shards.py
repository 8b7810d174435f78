"""The queue of record: one holder at a time, nothing lost when a holder falls silent, late writes fenced off."""

import time

import pytest
from sqlalchemy import update

from store import datasets, jobs, shards
from store.database import Database
from store.errors import LostLeaseError, WorkCancelledError
from store.phases import Owner, OwnerKind, Phase
from store.states import JobStatus, Setback, ShardState
from store.tables import Shard


@pytest.fixture
def queued(database: Database) -> str:
    """A job with two queued shards of the score phase."""
    with database.transaction() as session:
        datasets.create(
            session,
            dataset_id="ds_1",
            name=None,
            filename="x.zip",
            format=None,
            digest="sha256:0",
            size_bytes=1,
            upload_blob="datasets/ds_1/upload",
        )
        session.execute(update(Shard).values(state=ShardState.DONE))
        job = jobs.create(
            session,
            job_id="job_1",
            task="misalignment",
            spec={},
            code_version="0",
            dataset_id="ds_1",
            validation_dataset_id=None,
            dataset_digest="sha256:0",
        )
        jobs.open_phase(session, job, Phase.SCORE, [shards.Planned({"n": n}, 10) for n in range(2)])
    return "job_1"


def take(database: Database, seconds: float = 30.0) -> shards.Claim | None:
    with database.transaction() as session:
        return shards.claim(session, worker="me", lease_seconds=seconds)


def test_each_shard_is_claimed_once(database: Database, queued: str) -> None:
    claims = [take(database) for _ in range(3)]
    assert [claim and claim.payload["n"] for claim in claims] == [0, 1, None]


def test_two_who_claim_at_once_get_different_shards(database: Database, queued: str) -> None:
    with database.transaction() as one, database.transaction() as other:
        first = shards.claim(one, worker="a", lease_seconds=30)
        second = shards.claim(other, worker="b", lease_seconds=30)
    assert {first.payload["n"], second.payload["n"]} == {0, 1}


def test_an_expired_lease_is_taken_back_and_the_late_attempt_cannot_write(database: Database, queued: str) -> None:
    late = take(database, seconds=0.01)
    time.sleep(0.05)
    with database.transaction() as session:
        (expired,) = shards.take_back_expired(session)
    assert (expired.shard_id, expired.times) == (late.shard_id, 1)
    again = next(claim for claim in (take(database), take(database)) if claim.shard_id == late.shard_id)
    assert again.attempt == late.attempt + 1
    for write in (
        lambda session: shards.complete(session, late, {}, units=1),
        lambda session: shards.save_checkpoint(session, late, {}),
        lambda session: shards.renew(session, late, lease_seconds=9, done=0, total=None),
        lambda session: shards.put_back(session, late, Setback.RAISED, {}, delay_seconds=0),
    ):
        with pytest.raises(LostLeaseError), database.transaction() as session:
            write(session)
    with database.transaction() as session:
        assert not shards.is_last(session, again)
        shards.complete(session, again, {}, units=10)


def test_the_last_shard_of_a_phase_knows_that_it_is_the_last(database: Database, queued: str) -> None:
    with database.transaction() as session:
        claims = [shards.claim(session, worker="me", lease_seconds=30) for _ in range(2)]
    last = []
    for claim in claims:
        with database.transaction() as session:
            last.append(shards.is_last(session, claim))
            shards.complete(session, claim, {"n": claim.index}, units=10)
    assert last == [False, True]
    with database.transaction() as session:
        assert shards.outputs(session, Owner(OwnerKind.JOB, queued), Phase.SCORE) == [{"n": 0}, {"n": 1}]
        assert shards.progress(session, [(queued, Phase.SCORE)]) == {(queued, Phase.SCORE): shards.Progress(20, 20)}


def test_a_cancelled_job_is_told_at_the_next_renewal_and_ends_when_nothing_runs(
    database: Database, queued: str
) -> None:
    claim = take(database)
    with database.transaction() as session:
        assert jobs.cancel(session, queued).status == JobStatus.CANCELLING
    with pytest.raises(WorkCancelledError), database.transaction() as session:
        shards.renew(session, claim, lease_seconds=30, done=0, total=None)
    with database.transaction() as session:
        job = jobs.lock(session, queued)
        shards.drop(session, claim)
        jobs.finish_cancel(session, job)
        assert job.status == JobStatus.CANCELLED
    assert take(database) is None


def test_a_failed_job_takes_its_running_shards_with_it(database: Database, queued: str) -> None:
    claim = take(database)
    with database.transaction() as session:
        jobs.fail(session, jobs.lock(session, queued), {"code": "x", "message": "y", "param": None})
    with pytest.raises(LostLeaseError), database.transaction() as session:
        shards.complete(session, claim, {}, units=1)
    assert take(database) is None


def test_what_lost_its_worker_keeps_its_place_but_not_for_ever(database: Database, queued: str) -> None:
    for _ in range(3):
        lost = take(database, seconds=0.001)
        assert lost.payload["n"] == 0
        with database.transaction() as session:
            assert len(shards.take_back_from(session, "me")) == 1
    assert take(database).payload["n"] == 0
    with database.transaction() as session:
        assert len(shards.take_back_from(session, "me")) == 1
    assert [take(database).payload["n"] for _ in range(2)] == [1, 0]
