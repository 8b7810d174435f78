"""`summary.stability` of a job: what another draw of batches or of exchanges would have changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from ecif.detection.suspicion import fractional_ranks
from tests.service_fixtures import EmbeddingZip, Upload, Work

Run = Callable[..., tuple[dict[str, Any], dict[str, dict[str, Any]]]]

FIELDS = {"over", "repeats", "pairs", "rank_correlation", "top_overlap", "standard_error"}


@pytest.fixture
def run(client: TestClient, upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> Run:
    """A job on 90 pairs, 20 of them wrong: its summary, and its rows by key."""
    train, clean = (upload(archive)["id"] for archive in (embedding_zip(90, wrong=20), embedding_zip(40, seed=9)))
    work()

    def run_job(**spec: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        posted = client.post("/jobs", json={"dataset": train, "validation": {"dataset": clean}, **spec})
        assert posted.status_code == 202, posted.text
        work()
        job = client.get(f"/jobs/{posted.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        rows = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()["items"]
        return job["summary"], {row["key"]: row for row in rows}

    return run_job


def test_another_partition_is_the_one_that_a_second_would_have_been(run: Run) -> None:
    """Of a model as it is and without curvature there is one direction, so that with two partitions influence is the
    mean of what it is in each."""
    spec = {"task": "valuation", "fit": None, "influence": {"curvature": "identity", "damping": 0}}
    spec["methods"] = ["ecif", "pair_loss"]
    (one, rows), (two, both) = (
        run(**spec, objective={"batch_size": 30, "temperature": 0.2, "partitions": partitions}) for partitions in (1, 2)
    )
    for name in ("influence", "pair_loss"):
        here = torch.tensor([rows[key][name] for key in rows], dtype=torch.float64)
        there = 2 * torch.tensor([both[key][name] for key in rows], dtype=torch.float64) - here
        expected = float(torch.corrcoef(torch.stack([fractional_ranks(here), fractional_ranks(there)]))[0, 1])
        assert expected < 0.999
        spread = float((here - there).square().mean().sqrt())
        for summary, averaged in ((one, 1), (two, 2)):
            found = summary["stability"][name]
            assert set(found) == FIELDS
            assert (found["over"], found["repeats"], found["pairs"]) == ("partitions", 2, 90)
            assert found["rank_correlation"] == pytest.approx(expected, abs=1e-3)
            assert found["standard_error"] == pytest.approx(spread / (2 * averaged) ** 0.5, rel=1e-2)
    assert "suspicion" not in one["stability"]
    # The most harmful first: a top of nine pairs, in the one and in the other.
    first = {key: float(rows[key]["influence"]) for key in rows}
    second = {key: 2 * float(both[key]["influence"]) - first[key] for key in rows}
    tops = [set(sorted(of, key=of.__getitem__)[:9]) for of in (first, second)]
    assert one["stability"]["influence"]["top_overlap"]["0.1"] == pytest.approx(len(tops[0] & tops[1]) / 9)


def test_suspicion_and_influence_of_a_default_job_say_how_firm_they_are(run: Run) -> None:
    methods = ["ecif", "leave_one_out", "neighbour_influence", "clip_score"]
    summary, _ = run(task="misalignment", methods=methods, objective={"batch_size": 64, "temperature": 0.2})
    found = summary["stability"]
    assert found["suspicion"]["over"] == "exchanges"
    assert found["suspicion"]["repeats"] == 6
    names = {"influence", "positive_influence", "negative_influence", "neighbour_influence"}
    assert set(found) == names | {"self_influence", "leave_one_out", "suspicion"}  # a cosine depends on no chance
    for of_column in found.values():
        assert set(of_column) == FIELDS
        assert 0.2 < of_column["rank_correlation"] < 1
        assert set(of_column["top_overlap"]) == {"0.01", "0.05", "0.1"}
        assert of_column["standard_error"] > 0


def test_where_there_is_nothing_to_compare_it_is_null(run: Run) -> None:
    """One batch holds all: every partition is the same."""
    summary, _ = run(task="valuation", objective={"batch_size": 128, "temperature": 0.2})
    assert set(summary["stability"].values()) == {None}
