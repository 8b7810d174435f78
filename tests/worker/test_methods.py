"""Every method in any job: the same machine with other parts."""

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fastapi.testclient import TestClient

from ecif.curvature import choice
from ecif.detection.contrast import Contrast
from ecif.detection.contrast import contrast as against_all
from ecif.methods import lemon
from ecif.similarity import normalise
from tests.service_fixtures import EmbeddingZip, ProblemOf, Refusing, Upload, Work
from worker.analysis import baselines

METHODS = [
    "ecif",
    "clip_score",
    "pair_loss",
    "tracin",
    "trak",
    "ekfac_if",
    "lemon",
    "leave_one_out",
    "contrast_loss",
    "margin",
    "neighbour_influence",
]


@pytest.fixture
def data(upload: Upload, embedding_zip: EmbeddingZip, work: Work) -> dict[str, Any]:
    train, clean = upload(embedding_zip(150, wrong=30, width=16)), upload(embedding_zip(60, width=16, seed=9))
    work()
    return {"dataset": train["id"], "validation": {"dataset": clean["id"]}}


def finished(client: TestClient, work: Work, **spec: Any) -> list[dict[str, Any]]:
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    work()
    job = client.get(f"/jobs/{answer.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    return client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()["items"]


def test_all_methods_at_once_and_each_tells_wrong_pairs_its_own_way(
    client: TestClient, work: Work, data: dict[str, Any]
) -> None:
    rows = finished(
        client, work, task="misalignment", **data, methods=METHODS, objective={"batch_size": 50, "temperature": 0.1}
    )
    wrong = np.array([int(row["key"]) < 30 for row in rows])

    def area(scores: npt.NDArray[Any]) -> float:
        above = scores[wrong][:, None] > scores[~wrong][None]
        return above.mean()

    high = {"lemon": 1, "pair_loss": 1, "leave_one_out": 1, "clip_score": -1, "suspicion": 1, "self_influence": 1}
    high |= {"contrast_loss": 1, "margin": 1}
    found = {name: area(sign * np.array([row[name] for row in rows])) for name, sign in high.items()}
    assert min(found.values()) > 0.9, found
    influences = {name: np.array([row[name] for row in rows]) for name in ("tracin", "trak", "ekfac_if")}
    positive = np.array([row["positive_influence"] for row in rows])
    for name, values in influences.items():
        assert np.isfinite(values).all()
        # All of them estimate what the positive role does to the same validation loss, each with its own curvature.
        assert np.corrcoef(np.argsort(np.argsort(values)), np.argsort(np.argsort(positive)))[0, 1] > 0.5, name


def test_a_method_that_was_not_asked_for_is_null(client: TestClient, work: Work, data: dict[str, Any]) -> None:
    rows = finished(client, work, task="valuation", **data)
    assert all(row[name] is None for row in rows for name in METHODS[2:])


@pytest.fixture
def vectors(embedding_zip: EmbeddingZip) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows (150, 16) of the images and captions of `data`."""
    with zipfile.ZipFile(io.BytesIO(embedding_zip(150, wrong=30, width=16))) as archive:
        image, text = (torch.from_numpy(np.load(io.BytesIO(archive.read(f"{name}.npy")))) for name in ("image", "text"))
    return normalise(image), normalise(text)


def test_against_all_others_of_a_model_as_given(
    client: TestClient, work: Work, data: dict[str, Any], vectors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    image, text = vectors
    S = 10 * image @ text.mT
    own = S.diagonal()
    loss = S.logsumexp(1) + S.logsumexp(0) - 2 * own
    others = S.masked_fill(torch.eye(150, dtype=torch.bool), -torch.inf)
    margin = (others.amax(1) + others.amax(0) - 2 * own) / 10
    spec = {"task": "misalignment", "dataset": data["dataset"], "fit": None, "methods": ["contrast_loss", "margin"]}
    rows = finished(client, work, **spec, objective={"batch_size": 50, "temperature": 0.1})
    for row in rows:
        assert row["contrast_loss"] == pytest.approx(float(loss[int(row["key"])]), rel=1e-4, abs=1e-5)
        assert row["margin"] == pytest.approx(float(margin[int(row["key"])]), rel=1e-4, abs=1e-5)


def test_the_loss_is_of_the_fitted_model_and_the_margin_the_mean_over_the_fit(
    client: TestClient, work: Work, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Contrast] = []

    def contrast(*arguments: Any, **named: Any) -> Contrast:
        seen.append(against_all(*arguments, **named))
        return seen[-1]

    monkeypatch.setattr(baselines, "contrast", contrast)
    spec = {"task": "misalignment", "dataset": data["dataset"], "methods": ["contrast_loss", "margin"]}
    rows = finished(client, work, **spec, objective={"batch_size": 2, "temperature": 0.1}, fit={"epochs": 6})
    fitted, *along = seen  # with so many batches Adam begins, and checkpoints lie on its way
    assert len(along) > 1
    assert not torch.equal(along[0].margin, along[-1].margin)
    margin = torch.stack([each.margin for each in along]).double().mean(0)
    for row in rows:
        assert row["contrast_loss"] == pytest.approx(float(fitted.loss[int(row["key"])]))
        assert row["margin"] == pytest.approx(float(margin[int(row["key"])]))
    assert not torch.equal(fitted.loss, along[0].loss)


def test_lemon_of_many_pairs_looks_for_neighbours_in_a_sample(
    client: TestClient,
    work: Work,
    data: dict[str, Any],
    vectors: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baselines, "_NEIGHBOURS", 64)
    spec = {"task": "misalignment", "dataset": data["dataset"], "methods": ["lemon"], "fit": None}
    rows = finished(client, work, **spec, objective={"seed": 3})
    expected, among_all = lemon(*vectors, most=64, seed=3), lemon(*vectors)
    assert not torch.allclose(expected, among_all)
    for row in rows:
        assert row["lemon"] == pytest.approx(float(expected[int(row["key"])]), abs=1e-5)


def test_tracin_of_an_unfitted_model_is_identity_influence_of_the_positive_role(
    client: TestClient, work: Work, data: dict[str, Any]
) -> None:
    spec = {"task": "valuation", **data, "fit": None, "methods": ["ecif", "tracin"]}
    for row in finished(client, work, **spec, influence={"curvature": "identity"}):
        assert row["tracin"] == pytest.approx(row["positive_influence"], rel=1e-3, abs=1e-6)


def test_ekfac_if_has_the_damping_of_the_job(client: TestClient, work: Work, data: dict[str, Any]) -> None:
    """So it is the positive influence that the same curvature gives."""
    spec = {"task": "valuation", **data, "methods": ["ecif", "ekfac_if"], "influence": {"curvature": "ekfac"}}
    rows = finished(client, work, **spec, objective={"batch_size": 50, "temperature": 0.1, "l2": 1e-4})
    job = client.get("/jobs").json()["items"][0]
    assert job["summary"]["curvature"]["damping"] > 1e-4
    for row in rows:
        assert row["ekfac_if"] == pytest.approx(row["positive_influence"], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("damping", ["auto", 0.1])
def test_without_l2_damping_is_enough(
    client: TestClient, work: Work, data: dict[str, Any], damping: float | str
) -> None:
    objective = {"batch_size": 50, "temperature": 0.1, "l2": 0}
    spec = {"task": "misalignment", **data, "methods": ["trak", "ekfac_if"], "fit": {"epochs": 3}}
    rows = finished(client, work, **spec, objective=objective, influence={"damping": damping})
    assert all(np.isfinite(row[name]) and row[name] != 0 for row in rows for name in ("trak", "ekfac_if"))


def test_without_l2_and_damping_a_baseline_that_inverts_is_refused(
    client: TestClient, data: dict[str, Any], problem_of: ProblemOf
) -> None:
    spec = {"task": "misalignment", **data, "objective": {"l2": 0}, "methods": ["pair_loss", "trak"]}
    influence = {"damping": 0, "curvature": "identity"}
    problem = problem_of(client.post("/jobs", json={**spec, "influence": influence}))
    assert (problem["status"], problem["code"]) == (422, "singular_curvature")
    assert "trak" in problem["detail"]


def test_the_loss_without_a_pair_is_above_that_with_it_by_closed_forms_as_exactly(
    client: TestClient, work: Work, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"task": "misalignment", **data, "methods": ["leave_one_out", "pair_loss"]}
    spec |= {"objective": {"batch_size": 50, "temperature": 0.1}}
    columns = {}
    for method in ("exact", "kronecker"):
        rows = sorted(finished(client, work, **spec), key=lambda row: int(row["key"]))
        job = client.get("/jobs").json()["items"][0]
        assert job["summary"]["self_influence"]["method"] == method
        assert job["summary"]["curvature"]["converged"] is True
        assert all(row["influence"] is row["self_influence"] is None for row in rows)
        loss, without = (np.array([row[name] for row in rows]) for name in ("pair_loss", "leave_one_out"))
        assert (without - loss).mean() > 0
        columns[method] = without - loss
        monkeypatch.setattr(choice, "LARGEST", 0)
    assert np.corrcoef(columns["exact"], columns["kronecker"])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"objective": {"partitions": 2}}, "objective.partitions 2"),
        ({"objective": {"scope": "all"}}, "objective.scope all"),
        ({"objective": {"train_temperature": True}}, "objective.train_temperature"),
        ({"influence": {"curvature": "hessian"}}, "influence.curvature hessian"),
    ],
)
def test_the_loss_without_a_pair_is_refused_where_it_would_be_a_guess(
    client: TestClient, data: dict[str, Any], problem_of: ProblemOf, other: dict[str, Any], named: str
) -> None:
    body = {"task": "misalignment", **data, "methods": ["leave_one_out"], **other}
    problem = problem_of(client.post("/jobs", json=body))
    assert (problem["status"], problem["code"]) == (422, "leave_one_out_not_available")
    assert problem["errors"][0]["loc"] == ["body", "methods"]
    assert named in problem["detail"]


@pytest.mark.parametrize("method", ["neighbour_influence", "tracin", "trak", "ekfac_if"])
def test_a_method_that_needs_validation_says_so(refusing: Refusing, problem_of: ProblemOf, method: str) -> None:
    body = {"task": "misalignment", "dataset": refusing.embeddings, "methods": [method]}
    problem = problem_of(refusing.client.post("/jobs", json=body))
    assert (problem["status"], problem["code"]) == (422, "validation_required")
    assert method in problem["detail"]
