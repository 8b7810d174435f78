"""Pages of results: exact, in any order, and what the scores mean."""

import io
import math
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store import pairs
from store.tables import SCORES, Job, Result
from tests.service.exporting import World
from tests.service_fixtures import EmbeddingZip, ProblemOf


@pytest.fixture(scope="module")
def client(world: World) -> TestClient:
    return world.client


@pytest.fixture(scope="module")
def job(world: World, embedding_zip: EmbeddingZip) -> dict[str, Any]:
    """A finished job over 60 embedding pairs of which 12 carry another's text, with 40 clean ones beside."""
    clean = world.upload(embedding_zip(40, seed=3))
    id_ = world.job(
        dataset=world.upload(embedding_zip(60, wrong=12)),
        validation={"dataset": clean},
        objective={"batch_size": 32},
        fit={},
        methods=["ecif", "clip_score", "pair_loss"],
    )
    return dict(world.client.get(f"/jobs/{id_}").json())


def everything(client: TestClient, job: dict[str, Any], **params: Any) -> tuple[list[dict[str, Any]], int]:
    rows, cursor = [], None
    while True:
        page = client.get(
            f"/jobs/{job['id']}/results", params={**params, **({"cursor": cursor} if cursor else {})}
        ).json()
        rows += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return rows, page["total"]


def test_every_pair_is_ranked_once(client: TestClient, job: dict[str, Any]) -> None:
    rows, total = everything(client, job, limit=7)
    assert total == 60
    assert [row["rank"] for row in rows] == list(range(1, 61))
    assert {row["key"] for row in rows} == {str(i) for i in range(60)}
    suspicion = [row["suspicion"] for row in rows]
    assert suspicion == sorted(suspicion, reverse=True)
    assert job["summary"]["ranked_by"].startswith("suspicion")


def test_the_two_roles_sum_to_the_influence(client: TestClient, job: dict[str, Any]) -> None:
    rows, _ = everything(client, job)
    for row in rows:
        assert math.isclose(row["influence"], row["positive_influence"] + row["negative_influence"], abs_tol=1e-12)
        assert row["self_influence"] >= 0
        assert 0 < row["p_value"] <= 1
        assert row["flagged"] == (row["q_value"] <= 0.05)
        assert row["image_url"] is None
        assert row["relative_influence"] is None


@pytest.mark.parametrize(
    "sort", ["influence", "clip_score", "self_influence", "suspicion", "p_value", "relative_influence"]
)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_any_score_sorts_whole_and_without_repeats(
    client: TestClient, job: dict[str, Any], sort: str, order: str
) -> None:
    rows, _ = everything(client, job, sort=sort, order=order, limit=11)
    values = [row[sort] for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=order == "desc")
    assert values[len(known) :] == [None] * (60 - len(known))
    assert len({row["key"] for row in rows}) == 60


def test_wrong_pairs_are_found_and_the_clip_score_is_the_cosine_of_what_was_given(
    client: TestClient, job: dict[str, Any], embedding_zip: EmbeddingZip
) -> None:
    rows, _ = everything(client, job)
    with zipfile.ZipFile(io.BytesIO(embedding_zip(60, wrong=12))) as archive:
        image, text = (np.load(io.BytesIO(archive.read(name))) for name in ("image.npy", "text.npy"))
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    for row in rows:
        assert row["clip_score"] == pytest.approx(cosine[int(row["key"])], abs=1e-5)
    assert sum(int(row["key"]) < 12 for row in rows[:12]) >= 10


def test_filters_and_a_limit_over_the_maximum(client: TestClient, job: dict[str, Any]) -> None:
    flagged, total = everything(client, job, flagged=True)
    assert len(flagged) == total == job["summary"]["counts"]["flagged"]
    others, others_total = everything(client, job, flagged=False)
    assert len(others) == others_total == 60 - total
    one, one_total = everything(client, job, key="17")
    assert ([row["key"] for row in one], one_total) == (["17"], 1)
    assert len(everything(client, job, limit=10**9)[0]) == 60


def test_a_cursor_is_good_for_its_own_question_only(
    client: TestClient, job: dict[str, Any], problem_of: ProblemOf
) -> None:
    url = f"/jobs/{job['id']}/results"
    cursor = client.get(url, params={"limit": 5}).json()["next_cursor"]
    assert client.get(url, params={"limit": 9, "cursor": cursor}).status_code == 200
    for params in ({"sort": "influence"}, {"order": "desc"}, {"flagged": True}):
        problem = problem_of(client.get(url, params={**params, "cursor": cursor}))
        assert (problem["status"], problem["code"]) == (400, "invalid_cursor")
    for forged in ("x", "AAAA", cursor[:-2], "é", cursor + "A"):
        assert problem_of(client.get(url, params={"cursor": forged}))["status"] == 400


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": "x"}, {"sort": "colour"}, {"order": "up"}, {"flagged": "x"}, {"rate": 0}, {"rate": 1},
     {"rate": "nan"}],
)  # fmt: skip
def test_a_bad_parameter_is_named(
    client: TestClient, job: dict[str, Any], problem_of: ProblemOf, params: dict[str, Any]
) -> None:
    problem = problem_of(client.get(f"/jobs/{job['id']}/results", params=params))
    assert problem["status"] == 422
    assert problem["errors"][0]["loc"] == ["query", next(iter(params))]


def test_a_result_says_why_and_names_the_pairs_that_it_has_to_do_with(world: World, explained: str) -> None:
    rows = world.results(explained)
    for row in rows:
        number = int(row["key"].removeprefix("images/").removesuffix(".png"))
        before = f"images/{number - 1}.png" if number else None
        assert (row["better_caption"], row["exchanged_with"]) == (before, before)
    first = [
        {"column": "contrast_loss, as given", "contribution": 1.5},
        {"column": "clip_score, as given", "contribution": None},
    ]
    assert rows[0]["why"] == first
    assert rows[1]["why"][1]["contribution"] == -0.25
    assert rows[-1]["why"] == []
    margins = [row["margin"] for row in world.results(explained, sort="margin", order="desc")]
    assert margins == sorted(margins, reverse=True)
    assert margins[0] == 11


def test_the_keys_of_other_pairs_cost_one_query_a_page(
    world: World, explained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[int | None]] = []
    real = pairs.at

    def at(session: Session, dataset: int, positions: Iterable[int | None]) -> Any:
        asked.append(set(positions))
        return real(session, dataset, asked[-1])

    monkeypatch.setattr(pairs, "at", at)
    assert len(world.results(explained, sort="margin")) == 12
    assert asked == [{None, *range(11)}]


def test_flags_at_another_rate(client: TestClient, job: dict[str, Any]) -> None:
    q_values = sorted({row["q_value"] for row in everything(client, job)[0]})
    rate = q_values[len(q_values) // 2 - 1]
    assert rate < q_values[-1]
    every, total = everything(client, job, rate=rate, limit=7)
    assert total == 60
    assert all(row["flagged"] == (row["q_value"] <= rate) for row in every)
    expected = [row["key"] for row in every if row["q_value"] <= rate]
    assert 0 < len(expected) != job["summary"]["counts"]["flagged"]
    flagged, unknown = everything(client, job, rate=rate, flagged=True, limit=5)
    others, _ = everything(client, job, rate=rate, flagged=False, limit=50)
    assert ([row["key"] for row in flagged], unknown) == (expected, None)
    assert [row["key"] for row in others] == [row["key"] for row in every if row["q_value"] > rate]
    assert len(everything(client, job, flagged=True)[0]) == job["summary"]["counts"]["flagged"]


def test_a_cursor_of_one_rate_is_none_of_another(
    client: TestClient, job: dict[str, Any], problem_of: ProblemOf
) -> None:
    url = f"/jobs/{job['id']}/results"
    cursor = client.get(url, params={"limit": 5, "rate": 0.2}).json()["next_cursor"]
    assert client.get(url, params={"cursor": cursor, "rate": 0.2}).status_code == 200
    for params in ({}, {"rate": 0.3}):
        assert problem_of(client.get(url, params={**params, "cursor": cursor}))["code"] == "invalid_cursor"


@pytest.mark.parametrize(
    ("which", "reason"), [("valuation", "a valuation flags no pairs"), ("earlier", "submit it again")]
)
def test_without_q_values_there_is_no_other_rate(
    world: World, which: str, reason: str, valuation: str, explained: str, problem_of: ProblemOf
) -> None:
    of = valuation if which == "valuation" else explained
    with world.database.transaction() as session:
        number = session.scalars(select(Job.number).where(Job.id == explained)).one()
        session.execute(update(Result).where(Result.job == number).values(q_value=None))
    problem = problem_of(world.client.get(f"/jobs/{of}/results", params={"rate": 0.1}))
    assert (problem["status"], problem["code"]) == (409, "no_q_values")
    assert reason in problem["detail"]


@pytest.mark.parametrize("score", SCORES)
def test_every_score_has_bounds(client: TestClient, job: dict[str, Any], score: str) -> None:
    rows, _ = everything(client, job)
    there = sorted(row[score] for row in rows if row[score] is not None)
    low, high = (there[20], there[39]) if there else (-1.0, 1.0)
    found, total = everything(client, job, limit=7, sort=score, **{f"min_{score}": low, f"max_{score}": high})
    wanted = [row["key"] for row in rows if row[score] is not None and low <= row[score] <= high]
    assert sorted(row["key"] for row in found) == sorted(wanted)
    assert total is None


def test_bounds_are_numbers_and_part_of_the_question(
    client: TestClient, job: dict[str, Any], problem_of: ProblemOf
) -> None:
    url = f"/jobs/{job['id']}/results"
    assert problem_of(client.get(url, params={"min_suspicion": "nan"}))["status"] == 422
    assert "did you mean 'suspicion'?" in problem_of(client.get(url, params={"max_suspicon": 1}))["detail"]
    cursor = client.get(url, params={"limit": 3, "min_clip_score": 0}).json()["next_cursor"]
    other = client.get(url, params={"limit": 3, "min_clip_score": 0.1, "cursor": cursor})
    assert problem_of(other)["code"] == "invalid_cursor"


def test_captions_are_searched_as_text_in_any_case(world: World, explained: str) -> None:
    rows = world.client.get(f"/jobs/{explained}/results").json()["items"]
    text = next(row["caption"] for row in rows if row["caption"] and row["caption"].isascii())
    part = text[1:5].swapcase()
    found = world.client.get(f"/jobs/{explained}/results", params={"caption": part}).json()
    assert [row["key"] for row in found["items"]] == [
        row["key"] for row in rows if part.lower() in (row["caption"] or "").lower()
    ]
    assert found["total"] is None
    for pattern in ("%", "_", "a%b"):
        found = world.client.get(f"/jobs/{explained}/results", params={"caption": pattern}).json()
        assert [row["key"] for row in found["items"]] == [
            row["key"] for row in rows if pattern in (row["caption"] or "")
        ]


def test_columns_are_those_that_are_named(client: TestClient, job: dict[str, Any], problem_of: ProblemOf) -> None:
    url = f"/jobs/{job['id']}/results"
    whole = client.get(url, params={"limit": 3})
    light = client.get(url, params={"limit": 3, "columns": "key, suspicion"})
    assert light.json()["items"] == [
        {name: row[name] for name in ("rank", "key", "suspicion")} for row in whole.json()["items"]
    ]
    assert light.json()["next_cursor"] == whole.json()["next_cursor"]
    assert light.headers["link"].endswith('rel="next"')
    problem = problem_of(client.get(url, params={"columns": "key,suspision"}))
    assert (problem["status"], "did you mean 'suspicion'" in problem["detail"]) == (422, True)
