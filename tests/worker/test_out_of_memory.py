"""A job on a device with little memory: what can be cut is cut, and its answers are those of a device with more."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import delete

from ecif import linearise
from encoders.loaded_model import LoadedModel
from store.database import Database
from store.tables import Feature
from tests.service_fixtures import ImageZip, Upload, Work


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, three images or directions at once are too many."""

    def begin() -> None:
        vmap, image_features = torch.func.vmap, LoadedModel.image_features

        def narrow(function: Any, *arguments: Any, chunk_size: int | None = None) -> Any:
            if chunk_size is not None and chunk_size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return vmap(function, *arguments, chunk_size=chunk_size)

        def few(model: LoadedModel, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return image_features(model, pixels)

        monkeypatch.setattr(linearise, "vmap", narrow)
        monkeypatch.setattr(LoadedModel, "image_features", few)

    return begin


@pytest.mark.parametrize("scope", ["heads", "lora"])
def test_a_job_goes_on_with_fewer_at_once(
    client: TestClient,
    upload: Upload,
    image_zip: ImageZip,
    work: Work,
    database: Database,
    small_device: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    scope: str,
) -> None:
    def rows() -> dict[str, dict[str, Any]]:
        dataset = upload(image_zip(12))["id"]
        work()
        spec = {
            "task": "misalignment",
            "dataset": dataset,
            "model": {"architecture": "tiny", "pretrained": None},
            "objective": {"scope": scope, "batch_size": 6, "temperature": 0.2},
            "methods": ["ecif", "clip_score", "pair_loss"],
            "fit": None,
        }
        answer = client.post("/jobs", json=spec)
        work()
        job = client.get(f"/jobs/{answer.json()['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        page = client.get(f"/jobs/{job['id']}/results").json()
        return {row["key"]: row for row in page["items"]}

    expected = rows()
    with database.transaction() as session:
        session.execute(delete(Feature))  # else nothing is encoded the second time
    small_device()
    with caplog.at_level(logging.WARNING):
        found = rows()
    for name in ("self_influence", "clip_score", "pair_loss"):
        ours, theirs = (np.array([row[key][name] for key in sorted(row)]) for row in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())
    what = "images" if scope == "heads" else "directions"
    assert any(f"{what} at once: " in record.getMessage() for record in caplog.records)
