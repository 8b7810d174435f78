"""Whose turn it is: claims go round tenants and lanes, and leave to others what this worker is too old to know."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text, update

from store import datasets, jobs, shards
from store.database import Database
from store.nouns import new_id
from store.phases import Lane, Owner, OwnerKind, Phase
from store.states import ShardState
from store.tables import Job, Shard


@pytest.fixture
def queue(database: Database) -> Callable[[str, int], str]:
    """Make a job of a tenant with so many shards waiting in its score phase; returns its id."""

    def make(tenant: str, count: int) -> str:
        with database.of_tenant(tenant).transaction() as session:
            dataset = datasets.create(
                session, dataset_id=new_id("ds"), name=None, filename="x.zip", format=None, upload_blob="upload"
            )
            job = jobs.create(
                session,
                job_id=new_id("job"),
                task="misalignment",
                spec={},
                code_version="0",
                dataset_id=dataset.id,
                validation_dataset_id=None,
                dataset_digest="sha256:0",
            )
            jobs.open_phase(session, job, Phase.SCORE, [shards.Planned({}) for _ in range(count)])
        with database.transaction() as session:
            session.execute(update(Shard).where(Shard.dataset_id == dataset.id).values(state=ShardState.DONE))
        return job.id

    return make


def take(database: Database, **options: Any) -> shards.Claim | None:
    with database.transaction() as session:
        return shards.claim(session, worker="me", lease_seconds=30, **options)


def do(database: Database, claim: shards.Claim) -> None:
    with database.transaction() as session:
        shards.complete(session, claim, {}, units=1)


def test_one_shard_of_another_tenant_does_not_wait_behind_thousands(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    many = queue("heavy", 5000)
    for _ in range(3):
        do(database, take(database))
    few = queue("light", 2)
    order = []
    for _ in range(4):
        claim = take(database)
        order.append("light" if claim.owner.id == few else "heavy")
        do(database, claim)
    assert order == ["light", "heavy", "light", "heavy"]
    assert take(database).owner.id == many


def test_a_thousand_small_owners_of_one_tenant_take_the_turns_of_one(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    for _ in range(40):
        queue("swarm", 1)
    other = queue("other", 20)
    served: Counter[bool] = Counter()
    for _ in range(20):
        claim = take(database)
        served[claim.owner.id == other] += 1
        do(database, claim)
    assert served == {True: 10, False: 10}


def test_owners_of_one_tenant_share_its_turns_shard_by_shard(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    queue("one", 50)
    for _ in range(10):
        do(database, take(database))
    later = queue("one", 3)
    first_six = []
    for _ in range(6):
        claim = take(database)
        first_six.append(claim.owner.id == later)
        do(database, claim)
    assert sum(first_six) == 3


def test_a_large_job_is_not_held_up_by_small_ones_that_open_phase_after_phase(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    large = queue("one", 200)
    small = [queue("one", 1) for _ in range(5)]
    served: Counter[str] = Counter()
    for _ in range(60):
        claim = take(database)
        served[claim.owner.id] += 1
        do(database, claim)
        if claim.owner.id in small:
            with database.transaction() as session:
                job = jobs.lock(session, claim.owner.id)
                jobs.open_phase(session, job, Phase.SCORE, [shards.Planned({})], round_=claim.round + 1)
    assert served[large] >= 8  # of six owners it has its sixth


def test_who_holds_fewer_workers_comes_first(database: Database, queue: Callable[[str, int], str]) -> None:
    queue("one", 10)
    held = [take(database) for _ in range(3)]
    other = queue("other", 10)
    claims = [take(database) for _ in range(3)]
    assert [claim.owner.id == other for claim in claims] == [True, True, True]
    assert held


def test_a_tenant_holds_no_more_than_its_cap_and_nobody_waits_for_it(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    queue("capped", 10)
    assert [take(database, most_of_a_tenant=2) is not None for _ in range(3)] == [True, True, False]
    other = queue("other", 1)
    assert take(database, most_of_a_tenant=2).owner.id == other


def test_a_worker_takes_from_its_own_lanes_only(database: Database, queue: Callable[[str, int], str]) -> None:
    job = queue("one", 1)
    with database.transaction() as session:
        datasets.create(
            session,
            dataset_id="ds_fetched",
            name=None,
            filename=None,
            format=None,
            upload_blob="",
            source="https://example.org/x.zip",
        )
    assert take(database, lanes=[Lane.INGEST]) is None
    assert take(database, lanes=[Lane.COMPUTE]).owner.id == job
    assert take(database, lanes=[Lane.COMPUTE, Lane.INGEST]) is None
    assert take(database, lanes=[Lane.FETCH]).owner.id == "ds_fetched"


@pytest.mark.parametrize(
    "newer",
    [
        {Shard.phase: "tomorrow"},
        {Shard.version: 99},
        {Shard.spec_version: 99},
    ],
    ids=["phase", "version", "specification"],
)
def test_what_a_newer_release_queued_is_left_to_it_and_blocks_nobody(
    database: Database, queue: Callable[[str, int], str], newer: dict[Any, Any]
) -> None:
    theirs = queue("one", 3)
    with database.transaction() as session:
        session.execute(update(Shard).where(Shard.job_id == theirs).values(newer))
    ours = queue("one", 1)
    assert take(database).owner.id == ours
    assert take(database) is None
    with database.transaction() as session:
        left = session.execute(select(Shard.state, Shard.attempt).where(Shard.job_id == theirs)).all()
    assert left == [("queued", 0)] * 3


def test_a_specification_keeps_its_version_through_the_phases(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    job_id = queue("one", 1)
    with database.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(spec_version=99))
    with database.transaction() as session:
        jobs.open_phase(session, jobs.lock(session, job_id), Phase.RANK, [shards.Planned({})])
    assert take(database).phase is Phase.SCORE
    assert take(database) is None


def test_a_phase_may_be_opened_again_and_its_rounds_are_apart(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    job_id = queue("one", 2)
    for claim in [take(database), take(database)]:
        do(database, claim)
    with database.transaction() as session:
        jobs.open_phase(session, jobs.lock(session, job_id), Phase.SCORE, [shards.Planned({})] * 2, round_=1)
    first, second = take(database), take(database)
    assert (first.round, first.index, second.index) == (1, 0, 1)
    with database.transaction() as session:
        assert not shards.is_last(session, first)
        shards.complete(session, first, {"of": "the second round"}, units=1)
        assert shards.is_last(session, second)
        assert shards.outputs(session, Owner(OwnerKind.JOB, job_id), Phase.SCORE) == [{}, {}]
        assert shards.outputs(session, Owner(OwnerKind.JOB, job_id), Phase.SCORE, round_=1)[0] == {
            "of": "the second round"
        }


def test_a_renewal_touches_no_index(database: Database, queue: Callable[[str, int], str]) -> None:
    queue("one", 1)
    claim = take(database)
    for beat in range(20):
        with database.transaction() as session:
            shards.renew(session, claim, lease_seconds=30, done=beat, total=None)
    with database.engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        updates, hot = connection.execute(
            text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'shards'")
        ).one()
    assert updates - hot <= 3  # the claim, and what made the queue
    assert hot >= 20


def test_an_owner_whose_last_two_shards_did_not_see_each_other_is_found(
    database: Database, queue: Callable[[str, int], str]
) -> None:
    """Two releases at once may do that: the older one took the owner's row to see the other's end."""
    job_id = queue("one", 2)
    for claim in (take(database), take(database)):
        with database.transaction() as session:
            jobs.started(session, job_id)
            assert job_id not in [owner.id for owner in shards.stalled(session)]
            shards.complete(session, claim, {}, units=1)
    with database.transaction() as session:
        assert Owner(OwnerKind.JOB, job_id) in shards.stalled(session)
        assert shards.last_phase(session, Owner(OwnerKind.JOB, job_id)) is Phase.SCORE
