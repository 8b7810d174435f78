"""Which verdicts of two jobs differ: exact, in pages, whatever datasets they are of."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from store.tables import Job, Result
from tests.service.exporting import World
from tests.service_fixtures import EmbeddingZip, ProblemOf


@pytest.fixture(scope="module")
def client(world: World) -> TestClient:
    return world.client


@pytest.fixture(scope="module")
def compared(world: World, embedding_zip: EmbeddingZip) -> tuple[str, str]:
    """Two jobs over datasets of 50 and of 60 pairs of which 50 have keys in common; each flags some that the other
    does not."""
    earlier = world.job(dataset=world.upload(embedding_zip(50, wrong=12)))
    later = world.job(dataset=world.upload(embedding_zip(60, wrong=12, seed=2)))
    for job, flagged in ((earlier, (1, 2, 5, 9, 30)), (later, (2, 3, 4, 20, 41, 55, 60))):
        with world.database.transaction() as session:
            number = select(Job.number).where(Job.id == job).scalar_subquery()
            session.execute(update(Result).where(Result.job == number).values(flagged=Result.rank.in_(flagged)))
    return earlier, later


def _rows(client: TestClient, job: str) -> dict[str, dict[str, Any]]:
    items = client.get(f"/jobs/{job}/results", params={"limit": 1000}).json()["items"]
    return {row["key"]: row for row in items}


def _changes(client: TestClient, job: str, other: str, limit: int) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    params: dict[str, Any] = {"with": other, "limit": limit}
    while True:
        page = client.get(f"/jobs/{job}/diff", params=params).json()
        assert len(page["items"]) <= limit
        changes += page["items"]
        if page["next_cursor"] is None:
            return changes
        params["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_the_changes_are_those_of_the_results(client: TestClient, compared: tuple[str, str], limit: int) -> None:
    earlier, later = compared
    was, now = _rows(client, earlier), _rows(client, later)
    common = [key for key in now if key in was]
    newly = [key for key in common if now[key]["flagged"] and not was[key]["flagged"]]
    cleared = [key for key in was if was[key]["flagged"] and key in now and not now[key]["flagged"]]
    changes = _changes(client, later, earlier, limit)
    assert [change["key"] for change in changes] == newly + cleared  # results come in rank order
    assert [change["verdict"] for change in changes] == ["flagged"] * len(newly) + ["cleared"] * len(cleared)
    assert newly
    assert cleared
    for change in changes:
        before, after = was[change["key"]], now[change["key"]]
        assert (change["rank"], change["suspicion"]) == (after["rank"], after["suspicion"])
        assert (change["rank_before"], change["suspicion_before"]) == (before["rank"], before["suspicion"])


def test_the_other_way_round_they_are_the_same_pairs(client: TestClient, compared: tuple[str, str]) -> None:
    there, back = (_changes(client, *pair, limit=1000) for pair in (compared, compared[::-1]))
    opposite = {"flagged": "cleared", "cleared": "flagged"}
    assert {row["key"]: row["verdict"] for row in there} == {row["key"]: opposite[row["verdict"]] for row in back}
    assert _changes(client, compared[0], compared[0], limit=1000) == []


def test_what_cannot_be_compared_is_named(
    client: TestClient, world: World, compared: tuple[str, str], embedding_zip: EmbeddingZip, problem_of: ProblemOf
) -> None:
    job, other = compared
    dataset = world.upload(embedding_zip(20, seed=5))
    unjudged = world.job(task="valuation", dataset=dataset, validation={"fraction": 0.2})
    for params, status, code in (
        ({"with": unjudged}, 409, "no_verdicts"),
        ({"with": "job_nothing"}, 404, "job_not_found"),
        ({}, 422, "invalid_request"),
    ):
        problem = problem_of(client.get(f"/jobs/{job}/diff", params=params))
        assert (problem["status"], problem["code"]) == (status, code)
    cursor = client.get(f"/jobs/{job}/diff", params={"with": other, "limit": 1}).json()["next_cursor"]
    refused = problem_of(client.get(f"/jobs/{other}/diff", params={"with": job, "cursor": cursor}))
    assert (refused["status"], refused["code"]) == (400, "invalid_cursor")
