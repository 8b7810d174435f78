"""Jobs from end to end in this process: what the answer may depend on, and what it may not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from benchmarks.digit_worlds import smallest
from ecif.detection.learned import looks
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import EmbeddingZip, ImageZip, Upload, Work
from worker.analysis import load
from worker.analysis import problem as batch_ranges

Run = Callable[..., tuple[dict[str, Any], dict[str, dict[str, Any]]]]


@pytest.fixture
def run(client: TestClient, work: Work) -> Run:
    """Submit a job on datasets that exist, do it, return (job, rows by key)."""

    def run_job(**spec: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        answer = client.post("/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        work()
        job = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
        return job, {row["key"]: row for row in page["items"]}

    return run_job


COLUMNS = ("rank", "influence", "positive_influence", "negative_influence", "self_influence", "clip_score", "suspicion")


def columns(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(row[name] for name in COLUMNS) for key, row in rows.items()}


@pytest.mark.parametrize("shard_pairs", [7, 25])
def test_the_answer_does_not_depend_on_how_the_work_is_cut(
    client: TestClient,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
    shard_pairs: int,
) -> None:
    from worker.attempts.attempt import Workplace, work_once

    spec = {
        "task": "misalignment",
        "objective": {"batch_size": 16, "partitions": 2},
        "fit": {"epochs": 20},
    }

    def datasets() -> tuple[str, str]:
        train, clean = upload(embedding_zip(80, wrong=16)), upload(embedding_zip(30, seed=5))
        return train["id"], clean["id"]

    train, clean = datasets()
    work()
    _, whole = run(**spec, dataset=train, validation={"dataset": clean})

    monkeypatch.setattr(batch_ranges, "_PAIRS_A_SHARD", 16)
    monkeypatch.setattr(load, "_ROWS_A_SHARD", 9)
    train, clean = datasets()
    cut = Workplace(settings.model_copy(update={"ecif_shard_pairs": shard_pairs}), database, blobs)
    while work_once(cut) is not None:
        pass
    job, parts = run(**spec, dataset=train, validation={"dataset": clean})
    shards = {phase["phase"]: phase["shards"] for phase in job["summary"]["phases"]}
    assert shards["score"] == 14  # seven batches of 110 pairs, twice
    assert shards["load"] == 9
    for key, scores in columns(whole).items():  # pairs of several partitions are solved for together: not to the bit
        assert columns(parts)[key] == pytest.approx(scores, rel=1e-12)


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
def test_images_through_a_model(
    upload: Upload,
    image_zip: ImageZip,
    work: Work,
    run: Run,
    scope: str,
) -> None:
    model = {"architecture": smallest() if scope == "all" else "tiny", "pretrained": None}
    dataset, clean = upload(image_zip(14)), upload(image_zip(6))
    work()
    spec = {
        "task": "valuation",
        "dataset": dataset["id"],
        "validation": {"dataset": clean["id"]},
        "model": model,
        "objective": {"scope": scope, "batch_size": 8},
        "fit": {"epochs": 2},
        "methods": ["ecif", "clip_score", "pair_loss"],
    }
    job, rows = run(**spec)
    assert job["spec"]["model"] == model
    assert len(rows) == 14
    influence = [rows[key]["influence"] for key in sorted(rows, key=lambda key: rows[key]["rank"])]
    assert influence == sorted(influence)
    assert all(np.isfinite(row["self_influence"]) and row["pair_loss"] > 0 for row in rows.values())
    assert all(row["suspicion"] is None and row["flagged"] is None for row in rows.values())
    assert job["summary"]["ranked_by"] == "influence, most harmful first"
    assert job["summary"]["model"]["digest"]
    assert job["summary"]["fit"]["adam_precision"] == "float32"  # there is no GPU
    _, again = run(**spec)
    assert columns(again) == columns(rows)


@pytest.mark.parametrize(
    "influence",
    [
        {"curvature": "hessian", "damping": 50},
        {"curvature": "identity"},
        {"curvature": "ekfac"},
        {"negative": "taylor"},
        {"damping": 1.0},
    ],
)
def test_every_way_of_inverting_gives_a_finite_answer(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
    influence: dict[str, Any],
) -> None:
    train, clean = upload(embedding_zip(40)), upload(embedding_zip(16, seed=2))
    work()
    job, rows = run(
        task="valuation",
        dataset=train["id"],
        validation={"dataset": clean["id"]},
        objective={"batch_size": 20},
        influence=influence,
    )
    assert all(np.isfinite(row["influence"]) for row in rows.values())
    assert job["summary"]["curvature"]["curvature"] == influence.get("curvature", "gauss_newton")


def test_a_held_out_fraction_is_not_scored_and_gives_no_p_values(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
) -> None:
    dataset = upload(embedding_zip(50, wrong=10))
    work()
    job, rows = run(task="misalignment", dataset=dataset["id"], validation={"fraction": 0.2})
    assert (len(rows), job["summary"]["counts"]["held_out"]) == (40, 10)
    assert all(row["p_value"] is None and row["flagged"] is not None for row in rows.values())
    assert any("estimate" in warning for warning in job["summary"]["warnings"])
    assert job["summary"]["flagging"]["method"] == "estimate"


def test_without_validation_there_is_no_influence_but_self_influence(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
) -> None:
    dataset = upload(embedding_zip(30))
    work()
    _, rows = run(task="misalignment", dataset=dataset["id"])
    assert all(row["influence"] is None and row["self_influence"] >= 0 for row in rows.values())


def test_what_needs_no_curvature_has_none(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
) -> None:
    dataset = upload(embedding_zip(30))
    work()
    job, rows = run(task="misalignment", dataset=dataset["id"], methods=["clip_score"], fit=None)
    assert [phase["phase"] for phase in job["summary"]["phases"]] == ["plan", "score", "detect", "rank", "load"]
    assert job["summary"]["phases"][2]["pairs"] == looks(30) * 30  # each look goes over all of them
    assert job["summary"]["model"] == {"digest": None}
    assert job["summary"]["encoding"] is None
    assert all(row["self_influence"] is None and row["pair_loss"] is None for row in rows.values())


def test_one_pair_has_a_documented_answer(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
) -> None:
    dataset = upload(embedding_zip(1))
    work()
    job, rows = run(task="misalignment", dataset=dataset["id"])
    assert len(rows) == 1
    assert any("single pair" in warning for warning in job["summary"]["warnings"])


@pytest.mark.parametrize(
    ("model", "param"),
    [
        ({"architecture": {"embed_dim": 8, "vision_cfg": {"patch_size": 0}, "text_cfg": {}}}, "model.architecture"),
        ({"architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, "model.pretrained"),
    ],
)
def test_a_model_that_cannot_be_had_fails_the_job_and_names_the_field(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, Any],
    param: str,
) -> None:
    # No hub can be reached here either way; this spares the minute of its own retries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    dataset = upload(image_zip(4))
    job = client.post("/jobs", json={"task": "misalignment", "dataset": dataset["id"], "model": model}).json()
    work()
    failed = client.get(f"/jobs/{job['id']}").json()
    assert failed["status"] == "failed"
    assert failed["error"]["param"].startswith(param)
    assert failed["error"]["message"]


def test_many_pairs_are_fitted_in_few_passes_where_nothing_is_ranked_by_them(
    upload: Upload, embedding_zip: EmbeddingZip, work: Work, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = upload(embedding_zip(80))
    work()
    monkeypatch.setattr("worker.analysis.fit.MANY", 60)
    spec = {"dataset": dataset["id"], "fit": {"epochs": 40}, "objective": {"batch_size": 4}}
    job, rows = run(task="misalignment", **spec)
    assert job["summary"]["fit"]["bounded"]
    assert job["summary"]["fit"]["epochs"] <= 5
    assert "newton_decrement" not in job["summary"]["curvature"]  # no solve for what the fit says itself
    assert not any("stationary" in warning for warning in job["summary"]["warnings"])
    assert all(np.isfinite(row["self_influence"]) for row in rows.values())
    for task in ("misalignment", "valuation"):
        job, _ = run(task=task, validation={"fraction": 0.2}, **spec)
        assert "bounded" not in job["summary"]["fit"]
