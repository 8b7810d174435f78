"""Influence on the nearest validation pairs, as a job computes it."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.digit_worlds import smallest
from ecif.curvature import choice
from ecif.neighbours import OF_TOWERS, Neighbourhood
from tests.service_fixtures import EmbeddingZip, ImageZip, Upload, Work

Run = Callable[..., list[dict[str, Any]]]

OBJECTIVE = {"batch_size": 64, "temperature": 0.2}


@pytest.fixture
def run(client: TestClient, work: Work) -> Run:
    """The rows of a job, in the order of their keys."""

    def run_job(**spec: Any) -> list[dict[str, Any]]:
        answer = client.post("/jobs", json={"task": "valuation", "methods": ["ecif", "neighbour_influence"], **spec})
        assert answer.status_code == 202, answer.text
        work()
        job = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        rows = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()["items"]
        return sorted(rows, key=lambda row: int("".join(filter(str.isdigit, row["key"]))))

    return run_job


def vectors(archive: bytes) -> tuple[Tensor, Tensor]:
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        image, text = (torch.from_numpy(np.load(io.BytesIO(content.read(f"{name}.npy")))) for name in ("image", "text"))
    return image.double(), text.double()


def losses(heads: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """(n,) of one batch; heads (2, E, E)."""
    S = 5 * normalize(text @ heads[1].mT, dim=1) @ normalize(image @ heads[0].mT, dim=1).mT
    return -S.log_softmax(0).diagonal() - S.log_softmax(1).diagonal()


def test_it_is_the_gradient_of_the_nearest_ones_losses_along_that_of_what_leaves(
    upload: Upload, embedding_zip: EmbeddingZip, work: Work, run: Run
) -> None:
    """Of a model as it is, without curvature, in one batch: by the definition, pair by pair."""
    train, clean = embedding_zip(24, wrong=6), embedding_zip(31, seed=9)
    ids = [upload(content)["id"] for content in (train, clean)]
    work()
    spec = {"dataset": ids[0], "validation": {"dataset": ids[1]}, "fit": None, "objective": OBJECTIVE}
    rows = run(**spec, influence={"curvature": "identity", "damping": 0})
    (image, text), (near_image, near_text) = vectors(train), vectors(clean)
    heads = torch.stack([torch.eye(8, dtype=torch.float64)] * 2)
    own = torch.func.jacrev(lambda w: losses(w, near_image, near_text))(heads).flatten(1)
    cosine = normalize(image, dim=1) @ normalize(near_image, dim=1).mT
    cosine += normalize(text, dim=1) @ normalize(near_text, dim=1).mT
    for n, row in enumerate(rows):
        others = torch.arange(24) != n

        def leaves(w: Tensor, others: Tensor = others) -> Tensor:
            return losses(w, image, text).sum() - losses(w, image[others], text[others]).sum()

        nearest = cosine[n].argsort()[-10:]
        expected = (own[nearest] @ torch.func.grad(leaves)(heads).flatten()).mean()
        assert row["neighbour_influence"] == pytest.approx(float(expected), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("curvature", ["gauss_newton", "preconditioned", "hessian", "ekfac", "projected"])
def test_of_no_more_pairs_than_neighbours_it_is_influence(
    upload: Upload,
    embedding_zip: EmbeddingZip,
    work: Work,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    curvature: str,
) -> None:
    if curvature == "preconditioned":
        monkeypatch.setattr(choice, "LARGEST", 0)
        curvature = "gauss_newton"
    ids = [upload(content)["id"] for content in (embedding_zip(40, wrong=8), embedding_zip(9, seed=9))]
    work()
    spec = {"dataset": ids[0], "validation": {"dataset": ids[1]}, "influence": {"curvature": curvature}}
    partitions = 2 if curvature == "hessian" else 1
    rows = run(**spec, objective={**OBJECTIVE, "batch_size": 20, "partitions": partitions})
    largest = max(abs(row["influence"]) for row in rows)
    for row in rows:
        # Directions that are solved for apart stop at a relative residual of their own.
        assert row["neighbour_influence"] == pytest.approx(row["influence"], abs=0.02 * largest)


def test_of_whole_towers_too_and_alone_along_few_directions(
    upload: Upload, image_zip: ImageZip, work: Work, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: list[int] = []

    def gradients(neighbourhood: Neighbourhood, *arguments: Any) -> Tensor:
        solved.append(neighbourhood.groups)
        return of_groups(neighbourhood, *arguments)

    of_groups = Neighbourhood.gradients
    monkeypatch.setattr(Neighbourhood, "gradients", gradients)
    dataset = upload(image_zip(20))["id"]
    work()
    spec = {
        "dataset": dataset,
        "model": {"architecture": smallest()},  # of every direction each pass goes through both towers
        "fit": {"epochs": 1},
        "validation": {"fraction": 0.4},
    }
    objective = {"scope": "all", "batch_size": 6}
    both = run(**spec, objective=objective)
    largest = max(abs(row["influence"]) for row in both)
    for row in both:
        assert row["neighbour_influence"] == pytest.approx(row["influence"], abs=0.05 * largest)
    assert solved == [OF_TOWERS]  # of eight validation pairs
    alone = run(**spec, objective=objective, task="misalignment", methods=["neighbour_influence"])
    assert all(row["influence"] is row["self_influence"] is None for row in alone)
    found = [row["neighbour_influence"] for row in alone]
    assert found == pytest.approx([row["neighbour_influence"] for row in both], abs=0.02 * largest)


def test_suspicion_does_not_see_it(upload: Upload, embedding_zip: EmbeddingZip, work: Work, run: Run) -> None:
    ids = [upload(content)["id"] for content in (embedding_zip(80, wrong=16), embedding_zip(60, seed=9))]
    work()
    spec = {"task": "misalignment", "dataset": ids[0], "validation": {"dataset": ids[1]}, "objective": OBJECTIVE}
    without, beside = run(**spec, methods=["clip_score"]), run(**spec, methods=["clip_score", "neighbour_influence"])
    for name in ("suspicion", "p_value", "q_value", "flagged", "why"):
        assert [row[name] for row in without] == [row[name] for row in beside]
    assert len({row["neighbour_influence"] for row in beside}) == len(beside)
