"""The package alone and a job of the service give the same ranking of the same embeddings."""

import io
import zipfile

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from ecif import rank_embeddings
from tests.service_fixtures import EmbeddingZip, Upload, Work

OBJECTIVE = {"batch_size": 50, "partitions": 2, "temperature": 0.1}


def tensors(content: bytes) -> tuple[Tensor, Tensor]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        image, text = (torch.from_numpy(np.load(io.BytesIO(archive.read(f"{side}.npy")))) for side in ("image", "text"))
    return image, text


@pytest.mark.parametrize(("with_clean", "logit_bias"), [(True, None), (False, None), (True, -6.0)])
def test_one_call_is_a_job(
    client: TestClient,
    work: Work,
    upload: Upload,
    embedding_zip: EmbeddingZip,
    with_clean: bool,
    logit_bias: float | None,
) -> None:
    train, clean = embedding_zip(150, wrong=30, width=6), embedding_zip(90, width=6, seed=9)
    spec = {
        "task": "misalignment",
        "dataset": upload(train)["id"],
        "methods": ["ecif", "clip_score", "pair_loss"],
        "objective": OBJECTIVE,
        "flag": {"false_discovery_rate": 0.2},
    }
    if logit_bias is not None:
        spec["objective"] = {**OBJECTIVE, "loss": "sigmoid", "logit_bias": logit_bias}
    if with_clean:
        spec["validation"] = {"dataset": upload(clean)["id"]}
    work()
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    work()
    job = client.get(f"/jobs/{answer.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()["items"]
    rows = sorted(page, key=lambda row: int(row["key"]))

    ranking = rank_embeddings(
        *tensors(train),
        clean=tensors(clean) if with_clean else None,
        false_discovery_rate=0.2,
        temperature=0.1,
        logit_bias=logit_bias,
        batch_size=50,
        partitions=2,
    )
    scores = ranking.scores | {"suspicion": ranking.suspicion}
    if with_clean:
        scores |= {"p_value": ranking.flags.p_value, "q_value": ranking.flags.q_value}
    for name, values in scores.items():
        theirs = np.array([row[name] for row in rows])
        np.testing.assert_allclose(values.numpy(), theirs, rtol=1e-3, atol=1e-6, err_msg=name)
    assert ranking.flags.flagged.tolist() == [row["flagged"] for row in rows]
    assert [row["key"] for row in page[:10]] == [str(place) for place in ranking.order[:10].tolist()]
    assert ranking.damping.value == pytest.approx(job["summary"]["curvature"]["damping"], rel=1e-4)
