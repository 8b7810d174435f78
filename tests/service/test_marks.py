"""What people say of pairs is stored with who and when, and pairs of the random sample are nobody's choice."""

from collections import Counter
from itertools import islice

import pytest

from store import marks
from tests.service.exporting import World
from tests.service_fixtures import ProblemOf


@pytest.fixture
def key(world: World, job: str) -> str:
    return str(world.results(job)[3]["key"])


def test_a_mark_is_put_listed_replaced_and_taken_back(world: World, job: str, key: str) -> None:
    marks_of_job = f"/jobs/{job}/marks"
    put = world.client.put(f"{marks_of_job}/{key}", json={"mark": "drop"})
    assert put.status_code == 200, put.text
    assert {"key": key, "mark": "drop", "caption": None, "sample": False, "by": None}.items() <= put.json().items()
    world.client.put(f"{marks_of_job}/{key}", json={"mark": "relabel", "caption": "a cat\x00"})
    listed = world.client.get(marks_of_job).json()
    assert [(item["mark"], item["caption"]) for item in listed["items"]] == [("relabel", "a cat\ufffd")]
    assert listed["total"] == 1
    for _ in range(2):
        assert world.client.delete(f"{marks_of_job}/{key}").status_code == 204
    assert world.client.get(marks_of_job).json()["items"] == []


def test_a_mark_says_what_it_cannot_be(world: World, job: str, key: str, problem_of: ProblemOf) -> None:
    url = f"/jobs/{job}/marks"
    assert problem_of(world.client.put(f"{url}/{key}", json={"mark": "burn"}))["status"] == 422
    assert problem_of(world.client.put(f"{url}/{key}", json={"mark": "keep", "caption": "x"}))["status"] == 422
    assert problem_of(world.client.put(f"{url}/nobody", json={"mark": "keep"}))["code"] == "pair_not_found"
    assert problem_of(world.client.put(f"/jobs/job_0/marks/{key}", json={"mark": "keep"}))["code"] == "job_not_found"


def test_marks_come_in_pages(world: World, job: str) -> None:
    keys = [row["key"] for row in world.results(job)][:5]
    for key in keys:
        world.client.put(f"/jobs/{job}/marks/{key}", json={"mark": "keep"})
    seen, cursor = [], None
    while True:
        page = world.client.get(f"/jobs/{job}/marks", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [item["key"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(keys)
    for key in keys:
        world.client.delete(f"/jobs/{job}/marks/{key}")


def test_the_sample_is_the_same_each_time_and_holds_every_pair_of_a_small_job(world: World, job: str) -> None:
    first = world.client.get(f"/jobs/{job}/sample").json()
    assert first == world.client.get(f"/jobs/{job}/sample").json()
    assert {item["key"] for item in first["items"]} == {row["key"] for row in world.results(job)}
    assert [item["place"] for item in first["items"]] == list(range(1, 13))
    assert "suspicion" not in first["items"][0]


def test_each_rank_is_as_likely_in_a_sample() -> None:
    """Of 2,000 samples of 5 of 50 ranks each comes 200 times, give or take five standard deviations of 13.4."""
    drawn = Counter(rank for n in range(2000) for rank in islice(marks.sampled_ranks(f"job_{n}", 50), 5))
    assert drawn.keys() == set(range(1, 51))
    assert all(abs(count - 200) < 67 for count in drawn.values())
    assert len(set(marks.sampled_ranks("job_1", 10_000_000))) == marks.MOST_SAMPLED


def test_marks_beside_scores_and_marks_of_the_sample_are_kept_apart(world: World, job: str) -> None:
    sampled = world.client.get(f"/jobs/{job}/sample").json()["items"]
    url = f"/jobs/{job}/marks/{sampled[0]['key']}"
    world.client.put(url, json={"mark": "keep", "sample": True})
    world.client.put(url, json={"mark": "drop"})
    assert world.client.get(f"/jobs/{job}/sample").json()["items"][0]["mark"] == "keep"
    assert {item["sample"]: item["mark"] for item in world.client.get(f"/jobs/{job}/marks").json()["items"]} == {
        True: "keep",
        False: "drop",
    }
    for sample in ("true", "false"):
        world.client.delete(url, params={"sample": sample})


def test_a_job_calibrates_by_what_was_kept_on_the_sample_and_by_nothing_else(
    world: World, embeddings: str, problem_of: ProblemOf
) -> None:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    spec = {"task": "misalignment", "dataset": dataset, "validation": {"marks": embeddings}}
    rows = world.results(embeddings)
    for row in rows[-20:]:  # picked from the ranking
        world.client.put(f"/jobs/{embeddings}/marks/{row['key']}", json={"mark": "keep"})
    assert problem_of(world.client.post("/jobs", json=spec))["code"] == "no_marks"
    sample = [item["key"] for item in world.client.get(f"/jobs/{embeddings}/sample").json()["items"]]
    kept, dropped, after_a_gap = sample[:30], sample[30:32], sample[40:45]
    for key in (*kept, *dropped, *after_a_gap):
        mark = "drop" if key in dropped else "keep"
        world.client.put(f"/jobs/{embeddings}/marks/{key}", json={"mark": mark, "sample": True})
    job = world.job(dataset=dataset, validation={"marks": embeddings}, objective={"batch_size": 32})
    summary = world.client.get(f"/jobs/{job}").json()["summary"]
    assert (summary["counts"]["calibration"], summary["counts"]["scored"]) == (30, 30)
    assert summary["flagging"]["calibration_pairs"] == 30
    assert {row["key"] for row in world.results(job)} == {row["key"] for row in rows} - set(kept)


def test_marks_of_another_dataset_or_of_no_job_calibrate_nothing(
    world: World, embeddings: str, job: str, problem_of: ProblemOf
) -> None:
    dataset = world.client.get(f"/jobs/{job}").json()["spec"]["dataset"]
    for marked, code in ((embeddings, "other_dataset"), ("job_0", "unknown_job")):
        spec = {"task": "misalignment", "dataset": dataset, "validation": {"marks": marked}}
        problem = problem_of(world.client.post("/jobs", json=spec))
        assert (problem["code"], problem["errors"][0]["loc"]) == (code, ["body", "validation", "marks"])
