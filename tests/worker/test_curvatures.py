"""Every curvature in a job: what it says it reached, and that it does not matter how its sums were cut."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from ecif.curvature import choice
from tests.service_fixtures import EmbeddingZip, Upload, Work
from worker.analysis import problem as batch_ranges

Run = Callable[..., tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]]

CURVATURES = ["gauss_newton", "hessian", "ekfac", "projected", "identity"]
COLUMNS = ("influence", "positive_influence", "negative_influence", "self_influence")


@pytest.fixture
def data(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> dict[str, Any]:
    train, clean = upload(embedding_zip(120, wrong=24, width=6)), upload(embedding_zip(40, width=6, seed=9))
    work()
    return {"dataset": train["id"], "validation": {"dataset": clean["id"]}}


@pytest.fixture
def run(client: TestClient, work: Work, data: dict[str, Any]) -> Run:
    def run_job(curvature: str, **spec: Any) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        body = {
            "task": "valuation",
            **data,
            "objective": {"batch_size": 20, "partitions": 2, "temperature": 0.1, "l2": 0.1},
            "influence": {"curvature": curvature},
            **spec,
        }
        answer = client.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        work()
        job = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
        rows = sorted(page["items"], key=lambda row: int(row["key"]))
        return job, {name: np.array([row[name] for row in rows], dtype=float) for name in COLUMNS}

    return run_job


@pytest.mark.parametrize("curvature", CURVATURES)
def test_the_sums_may_be_cut_anywhere(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    curvature: str,
) -> None:
    _, whole = run(curvature)
    monkeypatch.setattr(batch_ranges, "_PAIRS_A_SHARD", 40)
    job, cut = run(curvature)
    shards = {phase["phase"]: phase["shards"] for phase in job["summary"]["phases"]}
    sums = {"ekfac": ["factors", "eigenvalues"], "projected": ["project"]}.get(curvature, [])
    assert all(shards[phase] == 6 for phase in [*sums, "score"])  # 2 partitions of 120 pairs, 40 a shard
    for name in COLUMNS:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_it_says_what_it_reached(run: Run, curvature: str) -> None:
    job, scores = run(curvature)
    told = job["summary"]["curvature"]
    assert told["curvature"] == curvature
    assert told["converged"] is True
    assert told["damping"] >= 0
    if curvature != "projected":
        least, most = told["eigenvalue_range"]
        assert 0 < least <= most
    how = "exact inside the projection" if curvature == "projected" else "exact"
    assert job["summary"]["self_influence"] == {"method": how, "probes": 0, "relative_standard_error": 0.0}
    assert (scores["self_influence"] > 0).all()
    np.testing.assert_allclose(
        scores["influence"], scores["positive_influence"] + scores["negative_influence"], rtol=1e-6, atol=1e-12
    )


def test_a_projection_that_holds_everything_is_gauss_newton(
    run: Run,
) -> None:
    """72 weights, 512 coordinates allowed: nothing is left out."""
    _, exact = run("gauss_newton")
    _, inside = run("projected")
    for name in COLUMNS:
        np.testing.assert_allclose(inside[name], exact[name], rtol=2e-3, atol=1e-4 * np.abs(exact[name]).max())


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian", "ekfac", "identity"])
def test_where_a_model_is_too_large_to_be_exact_self_influence_is_estimated(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    curvature: str,
) -> None:
    _, exact = run(curvature)
    monkeypatch.setattr(choice, "LARGEST", 0)
    monkeypatch.setitem(choice.PROBES, "probes", 400)
    job, estimated = run(curvature)
    told = job["summary"]["self_influence"]
    assert told["method"].startswith("random probes")
    assert ("Gauss-Newton" in told["method"]) == (curvature == "hessian")
    assert told["probes"] == 400
    assert told["relative_standard_error"] == pytest.approx(0.0707, abs=1e-3)
    ratio = estimated["self_influence"] / exact["self_influence"]
    assert abs(np.median(ratio) - 1) < 0.05
    assert np.corrcoef(estimated["self_influence"], exact["self_influence"])[0, 1] > 0.95
    np.testing.assert_allclose(
        estimated["influence"], exact["influence"], rtol=0.02, atol=2e-3 * np.abs(exact["influence"]).max()
    )
