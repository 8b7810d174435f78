"""Task `traceback`: which training pairs are responsible for how a test image was read."""

import csv
import io
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient

from tests.service_fixtures import ImageZip, ProblemOf, Upload, Work

Data = tuple[dict[str, Any], set[str]]


def embeddings(image: npt.NDArray[Any], text: npt.NDArray[Any], **columns: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("image.npy", image), ("text.npy", text)):
            buffer = io.BytesIO()
            np.save(buffer, content.astype(np.float32))
            archive.writestr(name, buffer.getvalue())
        if columns:
            table = io.StringIO()
            rows = csv.writer(table)
            rows.writerow(columns)
            rows.writerows(zip(*columns.values(), strict=True))
            archive.writestr("metadata.csv", table.getvalue())
    return out.getvalue()


CLASSES = np.eye(6, 8)


def world(n: int, seed: int, wrong: Iterable[int] = ()) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """n pairs of 6 classes; of the wrong ones, images of class 0 say class 1."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    image = CLASSES[labels] + 0.3 * generator.normal(size=(n, 8))
    said = labels.copy()
    said[list(wrong)] = 1
    return image, CLASSES[said], labels


@pytest.fixture
def data(upload: Upload, work: Work) -> Data:
    """120 training pairs; those of class 0 among the first 60 are called class 1. Queries: clean images."""
    wrong = [i for i in range(60) if i % 6 == 0]
    image, text, _ = world(120, 0, wrong)
    train = upload(embeddings(image, text))
    image, text, labels = world(12, 1)
    names = [f"class {label}" for label in labels]
    keys = [f"query {i}" for i in range(12)]
    queries = upload(embeddings(image, text, key=keys, caption=names))
    work()
    return {"dataset": train["id"], "queries": {"dataset": queries["id"], "top": 10}}, set(map(str, wrong))


def finished(client: TestClient, work: Work, **spec: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"task": "traceback", **spec})
    assert answer.status_code == 202, answer.text
    work()
    job = client.get(f"/jobs/{answer.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    return job


SPEC = {"objective": {"batch_size": 40, "temperature": 0.2, "l2": 0.1, "mask_duplicates": True}}
TWO_PARTITIONS = {"objective": SPEC["objective"] | {"partitions": 2}}


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_wrong_pairs_are_held_responsible_for_their_class(
    client: TestClient, work: Work, data: Data, loss: str
) -> None:
    spec, wrong = data
    spec["queries"]["loss"] = loss
    job = finished(client, work, **spec, **SPEC)
    assert job["summary"]["counts"]["queries"] == 12
    assert job["summary"]["curvature"]["spans"] == "exact"
    page = client.get(f"/jobs/{job['id']}/results", params={"query": "query 0"}).json()
    assert page["total"] == len(page["items"]) == 10
    found = [row["key"] for row in page["items"]]
    assert found[0] in wrong
    assert len(wrong.intersection(found)) >= 5
    relative = [row["relative_influence"] for row in page["items"]]
    assert relative == sorted(relative)
    assert all(-1 <= value <= 1 for value in relative)
    for row in page["items"]:
        assert row["query"] == "query 0"
        assert np.sign(row["relative_influence"]) == np.sign(row["influence"])
        assert row["influence"] == pytest.approx(row["positive_influence"] + row["negative_influence"])


def test_the_positive_role_alone_singles_the_wrong_pairs_out(client: TestClient, work: Work, data: Data) -> None:
    """Right pairs of the class are harmful too, in their negative role: their text repels the wrong pairs' images."""
    spec, wrong = data
    spec["queries"]["top"] = 120
    job = finished(client, work, **spec, **SPEC)
    rows = client.get(f"/jobs/{job['id']}/results", params={"query": "query 0", "limit": 1000}).json()["items"]
    most_harmful = sorted(rows, key=lambda row: row["positive_influence"])[:10]
    assert len(wrong.intersection(row["key"] for row in most_harmful)) >= 8


def test_all_queries_page_by_page(client: TestClient, work: Work, data: Data) -> None:
    spec, _ = data
    job = finished(client, work, **spec, **SPEC)
    rows, cursor = [], None
    while True:
        params = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"/jobs/{job['id']}/results", params=params).json()
        rows += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert page["total"] == len(rows) == 120
    assert [row["rank"] for row in rows] == list(range(1, 121))
    assert [row["query"] for row in rows[::10]] == [f"query {i}" for i in range(12)]


def test_estimated_spans_come_near_the_exact_ones(
    client: TestClient, work: Work, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = data
    spec["queries"]["top"] = 120
    exact = finished(client, work, **spec, **TWO_PARTITIONS)
    assert exact["summary"]["curvature"]["spans_relative_standard_error"] == 0
    monkeypatch.setattr("ecif.curvature.choice.LARGEST", 0)
    monkeypatch.setattr("worker.analysis.curvature.SPAN_PROBES", 600)
    estimated = finished(client, work, **spec, **TWO_PARTITIONS)
    assert "probes" in estimated["summary"]["curvature"]["spans"]
    assert estimated["summary"]["curvature"]["spans_relative_standard_error"] == pytest.approx(1200**-0.5)

    def by_key(job: dict[str, Any]) -> dict[str, float]:
        page = client.get(f"/jobs/{job['id']}/results", params={"query": "query 0", "limit": 1000}).json()
        return {row["key"]: row["relative_influence"] for row in page["items"]}

    first, second = by_key(exact), by_key(estimated)
    ours, theirs = np.array([[first[key], second[key]] for key in first]).T
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_images_with_candidates(client: TestClient, upload: Upload, image_zip: ImageZip, work: Work) -> None:
    train, queries = upload(image_zip(12)), upload(image_zip(3))
    work()
    job = finished(
        client,
        work,
        dataset=train["id"],
        queries={"dataset": queries["id"], "top": 2, "candidates": [f"picture number {i}" for i in range(5)]},
        model={"architecture": "tiny", "pretrained": None},
        objective={"batch_size": 6},
        fit={"epochs": 2},
    )
    assert [query["true"] for query in job["summary"]["queries"]] == [f"picture number {i}" for i in range(3)]
    assert client.get(f"/jobs/{job['id']}/results").json()["total"] == 6


def test_a_true_text_that_is_no_candidate_is_named(
    client: TestClient, upload: Upload, image_zip: ImageZip, work: Work
) -> None:
    train, queries = upload(image_zip(6)), upload(image_zip(3))
    work()
    body = {
        "task": "traceback",
        "dataset": train["id"],
        "queries": {"dataset": queries["id"], "candidates": ["picture number 0", "something else"]},
        "model": {"architecture": "tiny", "pretrained": None},
        "fit": None,
    }
    job = client.post("/jobs", json=body).json()
    work()
    failed = client.get(f"/jobs/{job['id']}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "not_a_candidate")
    assert "picture number 1" in failed["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"queries": None},
        {"queries": {"dataset": "ds_x"}},
        {"task": "misalignment"},
        {"queries": {"dataset": "x", "top": 0}},
    ],
)
def test_a_traceback_that_is_not_well_asked_is_a_422(
    client: TestClient, data: Data, problem_of: ProblemOf, change: dict[str, Any]
) -> None:
    spec, _ = data
    assert problem_of(client.post("/jobs", json={"task": "traceback", **spec, **change}))["status"] == 422


@pytest.mark.parametrize("curvature", ["hessian", "ekfac", "projected", "identity"])
def test_every_curvature_traces(client: TestClient, work: Work, data: Data, curvature: str) -> None:
    spec, wrong = data
    job = finished(client, work, **spec, **SPEC, influence={"curvature": curvature})
    rows = client.get(f"/jobs/{job['id']}/results", params={"query": "query 0"}).json()["items"]
    assert rows[0]["key"] in wrong
    assert all(-1 <= row["relative_influence"] <= 1 for row in rows)


def test_a_store_of_projected_gradients_answers_as_the_model_does(client: TestClient, work: Work, data: Data) -> None:
    """128 weights, 512 coordinates allowed: nothing is left out, and nothing is different."""
    spec, _ = data
    spec["queries"]["top"] = 120
    found = []
    for curvature in ("gauss_newton", "projected"):
        job = finished(client, work, **spec, **TWO_PARTITIONS, influence={"curvature": curvature})
        rows = client.get(f"/jobs/{job['id']}/results", params={"query": "query 3", "limit": 1000}).json()["items"]
        found.append({row["key"]: (row["relative_influence"], row["influence"]) for row in rows})
    exact, stored = (np.array([scores[key] for key in sorted(found[0])]) for scores in found)
    np.testing.assert_allclose(stored[:, 0], exact[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(stored[:, 1], exact[:, 1], rtol=1e-3, atol=1e-3 * np.abs(exact[:, 1]).max())


def test_a_fit_that_stopped_early_is_warned_of(client: TestClient, work: Work, data: Data) -> None:
    spec, _ = data
    job = finished(client, work, **spec, **SPEC, fit={"epochs": 1})
    assert any(warning.startswith("not stationary") for warning in job["summary"]["warnings"])
