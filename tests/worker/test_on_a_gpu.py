"""Whole jobs on a CUDA device: each column is what the same job gives on a CPU, to the rounding of float32.

Each device has an installation of its own, so that neither finds what the other has encoded.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load

from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import SCORES
from tests.service_fixtures import EmbeddingZip, ImageZip
from worker.analysis.models import compute_in_float32
from worker.attempts.attempt import Workplace, work_once

pytestmark = pytest.mark.cuda

Content = bytes
Row = dict[str, Any]

OTHER = "cuda"
_BY_RANK = ("p_value", "q_value")  # two pairs that change places change them by a step


@dataclass(frozen=True)
class Found:
    """A job that has succeeded, its rows by query and key, and its checkpoint where it has one."""

    job: dict[str, Any]
    rows: dict[tuple[str, str], Row]
    weights: dict[str, torch.Tensor]

    def column(self, name: str) -> npt.NDArray[np.float64] | None:
        values = [self.rows[key][name] for key in sorted(self.rows)]
        return None if values[0] is None else np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class Installation:
    client: TestClient
    place: Workplace

    def dataset(self, content: Content) -> str:
        answer = self.client.post("/datasets", files={"file": ("data.zip", content)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, data: dict[str, Content], spec: dict[str, Any]) -> Found:
        """The job of `spec`, in which names of `data` stand for datasets."""
        ids = {name: self.dataset(content) for name, content in data.items()}
        self._work()
        text = json.dumps(spec)
        for name, dataset in ids.items():
            text = text.replace(f'"@{name}"', f'"{dataset}"')
        answer = self.client.post("/jobs", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 202, answer.text
        self._work()
        job = self.client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        page = self.client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
        rows = {(row["query"] or "", row["key"]): row for row in page["items"]}
        assert len(rows) == page["total"]
        edited = spec["task"] == "removal"
        weights = load(self.client.get(f"/jobs/{job['id']}/checkpoint").content) if edited else {}
        return Found(job, rows, weights)

    def _work(self) -> None:
        while work_once(self.place) is not None:
            pass


Both = Callable[[dict[str, Content], dict[str, Any]], tuple[Found, Found]]


@pytest.fixture
def both(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Both]:
    """Run a job on the CPU and on the other device."""
    backends: Any = torch.backends
    before = backends.fp32_precision
    compute_in_float32()  # as a worker does when it starts
    with ExitStack() as stack:

        def installation(name: str, device: str) -> Installation:
            settings = Settings(
                ecif_home=tmp_path / name,
                database_url=new_database(),
                redis_url="redis://127.0.0.1:1/0",
                ecif_device=device,
            )
            database = Database.from_settings(settings)
            stack.callback(database.close)
            client = stack.enter_context(TestClient(create_app(settings), raise_server_exceptions=False))
            return Installation(client, Workplace(settings, database, Blobs.from_settings(settings)))

        def run(data: dict[str, Content], spec: dict[str, Any]) -> tuple[Found, Found]:
            on_cpu = installation("cpu", "cpu").run(data, spec)
            if OTHER == "cuda":
                torch.cuda.reset_peak_memory_stats()
            on_other = installation("other", OTHER).run(data, spec)
            if OTHER == "cuda":
                assert torch.cuda.max_memory_allocated() > 0
            return on_cpu, on_other

        yield run
    backends.fp32_precision = before


def agree(cpu: Found, other: Found, within: float) -> None:
    """Every column to that share of its largest value, and what counts pairs to a tenth of all."""
    assert cpu.rows.keys() == other.rows.keys()
    compared = []
    for name in SCORES:
        expected, found = cpu.column(name), other.column(name)
        assert (expected is None) == (found is None), name
        if expected is None or found is None:
            continue
        most = 0.1 if name in _BY_RANK else within * np.abs(expected).max()
        if name != "q_value":  # a step of a p-value, times as many pairs as there are
            np.testing.assert_allclose(found, expected, rtol=0, atol=most, err_msg=name)
        compared.append(name)
    assert compared
    for name, weight in cpu.weights.items():
        found_weight = other.weights[name]
        torch.testing.assert_close(found_weight, weight, rtol=0, atol=within * float(weight.abs().max()))


EVERY_METHOD = ["ecif", "clip_score", "pair_loss", "contrast_loss", "margin", "tracin", "trak", "ekfac_if", "lemon"]
CALM = {"batch_size": 20, "temperature": 0.2, "l2": 0.3}  # a problem that is well away from the edge of float32


@pytest.mark.parametrize("width", [8, 48], ids=["exact", "probes"])
def test_misalignment_of_embeddings_by_every_method(both: Both, embedding_zip: EmbeddingZip, width: int) -> None:
    data = {"train": embedding_zip(80, width, wrong=16), "clean": embedding_zip(30, width, seed=5)}
    cpu, other = both(
        data,
        {
            "task": "misalignment",
            "dataset": "@train",
            "validation": {"dataset": "@clean"},
            "methods": EVERY_METHOD,
            "objective": CALM | {"partitions": 2},
            "fit": {"epochs": 60},
        },
    )
    assert other.job["summary"]["self_influence"]["method"] == ("exact" if width == 8 else "random probes")
    agree(cpu, other, 5e-3)


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian", "ekfac", "projected", "identity"])
def test_every_curvature(both: Both, embedding_zip: EmbeddingZip, curvature: str) -> None:
    data = {"train": embedding_zip(60), "clean": embedding_zip(20, seed=2)}
    cpu, other = both(
        data,
        {
            "task": "valuation",
            "dataset": "@train",
            "validation": {"dataset": "@clean"},
            "objective": CALM,
            "fit": {"epochs": 60},
            "influence": {"curvature": curvature},
        },
    )
    assert other.job["summary"]["curvature"]["curvature"] == curvature
    agree(cpu, other, 5e-3)


@pytest.mark.parametrize(
    ("width", "influence"),
    [(8, {}), (48, {}), (8, {"curvature": "projected"}), (8, {"negative": "taylor"})],
    ids=["exact", "probes", "projected", "taylor"],
)
def test_traceback(both: Both, embedding_zip: EmbeddingZip, width: int, influence: dict[str, Any]) -> None:
    data = {"train": embedding_zip(60, width), "queries": embedding_zip(4, width, seed=3)}
    cpu, other = both(
        data,
        {
            "task": "traceback",
            "dataset": "@train",
            "queries": {"dataset": "@queries", "top": 60},  # all: which of two comes last is a matter of rounding
            "objective": CALM,
            "fit": {"epochs": 60},
            "influence": influence,
        },
    )
    assert len(other.rows) == 4 * 60
    agree(cpu, other, 2e-2)


def test_removal_with_a_real_refit(both: Both, embedding_zip: EmbeddingZip) -> None:
    data = {"train": embedding_zip(60), "clean": embedding_zip(20, seed=4)}
    cpu, other = both(
        data,
        {
            "task": "removal",
            "dataset": "@train",
            "validation": {"dataset": "@clean"},
            "remove": {"keys": ["7", "30"]},
            "verify": True,
            "objective": CALM | {"train_temperature": True},
            "fit": {"epochs": 60},
        },
    )
    agree(cpu, other, 5e-3)
    expected, found = (job.job["summary"]["removal"] for job in (cpu, other))
    assert found["removed"] == expected["removed"] == 2
    assert found["step_norm"] == pytest.approx(expected["step_norm"], rel=1e-2)
    assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-2)
    assert found["verified"]["stationary"]
    assert found["verified"]["validation_loss"] == pytest.approx(expected["verified"]["validation_loss"], rel=1e-3)


TINY = {"model": {"architecture": "tiny", "pretrained": None}, "validation": {"dataset": "@clean"}}


@pytest.mark.parametrize(
    ("scope", "influence"),
    [
        ("heads", {}),
        ("lora", {}),
        ("all", {}),
        ("lora", {"curvature": "ekfac"}),
        ("lora", {"curvature": "projected"}),
        ("lora", {"curvature": "hessian", "damping": 50}),
    ],
    ids=["heads", "lora", "all", "lora-ekfac", "lora-projected", "lora-hessian"],
)
def test_images_through_a_model_as_it_is(
    both: Both, image_zip: ImageZip, scope: str, influence: dict[str, Any]
) -> None:
    cpu, other = both(
        {"train": image_zip(14), "clean": image_zip(6)},
        TINY
        | {
            "task": "valuation",
            "dataset": "@train",
            "objective": {"scope": scope, "batch_size": 7, "temperature": 0.1},
            "fit": None,
            "methods": ["ecif", "clip_score", "pair_loss", "tracin"],
            "influence": influence,
        },
    )
    # A direction is solved for to a hundredth through whole towers. Factors of so few pairs have many eigenvalues that
    # are nearly equal, whose basis is any.
    within = 0.1 if influence.get("curvature") == "ekfac" else 5e-3 if scope == "heads" else 2e-2
    agree(cpu, other, within)


def test_heads_of_images_after_a_fit(both: Both, image_zip: ImageZip) -> None:
    cpu, other = both(
        {"train": image_zip(14), "clean": image_zip(6)},
        TINY
        | {
            "task": "misalignment",
            "dataset": "@train",
            "objective": {"batch_size": 7, "temperature": 0.2},
            "methods": EVERY_METHOD,
        },
    )
    encoded = other.job["summary"]["encoding"]
    assert encoded["images"]["encoded"] == 14 + 6 - encoded["images"]["reused"]
    agree(cpu, other, 2e-2)


@pytest.mark.parametrize("scope", ["lora", "all"])
def test_towers_after_adam_in_bfloat16(both: Both, image_zip: ImageZip, scope: str) -> None:
    """Adam's way is another one there, so only what it comes to is compared."""
    cpu, other = both(
        {"train": image_zip(14), "clean": image_zip(6)},
        TINY
        | {
            "task": "removal",
            "dataset": "@train",
            "remove": {"keys": ["images/3.png"]},
            "objective": {"scope": scope, "batch_size": 7, "temperature": 0.2, "train_temperature": True},
            "fit": {"epochs": 3},
            "influence": {"damping": 10},  # a solve of few passes
        },
    )
    precision = "bfloat16" if OTHER == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    assert other.job["summary"]["fit"]["adam_precision"] == precision
    objectives = [job.job["summary"]["fit"]["objective"] for job in (cpu, other)]
    assert objectives[1] == pytest.approx(objectives[0], rel=2e-2)
    cosines, found = cpu.column("clip_score"), other.column("clip_score")
    assert cosines is not None
    assert found is not None
    np.testing.assert_allclose(found, cosines, rtol=0, atol=5e-2)
    assert cpu.weights.keys() == other.weights.keys()


def test_images_traced_back(both: Both, image_zip: ImageZip) -> None:
    cpu, other = both(
        {"train": image_zip(12), "queries": image_zip(3)},
        {
            "task": "traceback",
            "dataset": "@train",
            "queries": {"dataset": "@queries", "top": 12, "candidates": [f"picture number {i}" for i in range(5)]},
            "model": TINY["model"],
            "objective": {"batch_size": 6, "temperature": 0.1},
            "fit": None,
        },
    )
    agree(cpu, other, 2e-2)
