"""The map of a job shows its pairs, with what the results say of them."""

from tests.service.exporting import World
from tests.service_fixtures import ProblemOf


def test_a_map_holds_every_pair_of_a_small_job(world: World, embeddings: str) -> None:
    answer = world.client.get(f"/jobs/{embeddings}/map").json()
    rows = {row["rank"]: row for row in world.results(embeddings)}
    assert sorted(answer["rank"]) == sorted(rows)
    for rank, suspicion, flagged in zip(answer["rank"], answer["suspicion"], answer["flagged"], strict=True):
        assert abs(rows[rank]["suspicion"] - suspicion) < 1e-4
        assert rows[rank]["flagged"] == flagged
    assert max(map(abs, answer["x"] + answer["y"])) == 1
    assert 0 < answer["explained"] < 1
    chosen = ",".join(map(str, answer["rank"][:3]))
    assert {row["rank"] for row in world.results(embeddings, ranks=chosen)} == set(answer["rank"][:3])


def test_other_tasks_have_none(world: World, valuation: str, problem_of: ProblemOf) -> None:
    assert problem_of(world.client.get(f"/jobs/{valuation}/map"))["code"] == "no_map"
