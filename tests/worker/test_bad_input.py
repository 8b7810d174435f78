"""Data and settings at the edge of what makes sense, through the API: a clear error, or a finite answer that says so.

Elsewhere: a specification that cannot be (`tests/service/test_jobs.py`: τ below 0.01, l2 and damping both 0), a query
whose true text is no candidate (`test_traceback.py`), a removal of everything (`test_removal.py`).
"""

import io
import json
import math
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

from tests.service_fixtures import ImageZip, Upload, Work, picture

Answer = Callable[..., tuple[dict[str, Any], dict[str, dict[str, Any]]]]
Ready = Callable[..., str]

METHODS = ["ecif", "clip_score", "pair_loss", "contrast_loss", "margin", "tracin", "trak", "ekfac_if", "lemon"]


def embeddings(n: int = 24, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(n, 6)).astype(np.float32)
    return image, image + 0.3 * generator.normal(size=(n, 6)).astype(np.float32)


@pytest.fixture
def ready(upload: Upload, work: Work) -> Ready:
    """Keep embeddings as a dataset; its id."""

    def keep(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> str:
        dataset = upload(save({"image": image, "text": text}), "data.safetensors")
        work()
        return dataset["id"]

    return keep


@pytest.fixture
def answer(client: TestClient, work: Work) -> Answer:
    """Do a job; (job, rows by key). Every number of them is finite."""

    def ask(**spec: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        posted = client.post("/jobs", json=spec)
        assert posted.status_code == 202, posted.text
        work()
        job = client.get(f"/jobs/{posted.json()['id']}").json()
        page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000})
        rows = page.json()["items"] if page.status_code == 200 else []
        assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
        return job, {row["key"]: row for row in rows}

    return ask


def succeeded(job: dict[str, Any]) -> dict[str, Any]:
    assert job["status"] == "succeeded", job["error"]
    return job["summary"]


@pytest.mark.parametrize("task", ["misalignment", "valuation"])
def test_a_batch_larger_than_the_dataset_is_one_batch(ready: Ready, answer: Answer, task: str) -> None:
    train, clean = ready(*embeddings()), ready(*embeddings(9, seed=1))
    spec = {"task": task, "dataset": train, "validation": {"dataset": clean}, "methods": METHODS}
    job, rows = answer(**spec, objective={"batch_size": 65_536, "temperature": 0.2})
    summary = succeeded(job)
    pairs = 24 + summary["counts"]["calibration"]
    assert summary["warnings"][0] == f"batch_size 65536 is more than the {pairs} pairs: one batch holds them all"
    assert summary["counts"]["batches"] == 1
    assert all(row["influence"] != 0 for row in rows.values())


def test_one_pair_has_scores_of_zero_and_a_warning(ready: Ready, answer: Answer) -> None:
    one, clean = ready(*embeddings(1)), ready(*embeddings(1, seed=1))
    job, rows = answer(task="valuation", dataset=one, validation={"dataset": clean}, methods=METHODS)
    summary = succeeded(job)
    assert any("single pair" in warning for warning in summary["warnings"])
    assert rows["0"]["influence"] == rows["0"]["self_influence"] == rows["0"]["pair_loss"] == 0


@pytest.mark.parametrize(("mask", "loss"), [(True, 0.0), (False, math.log(2))])
def test_a_caption_twice_is_no_negative_of_itself(
    ready: Ready,
    answer: Answer,
    mask: bool,
    loss: float,
) -> None:
    """Unmasked, its twin takes half of the probability of the first pair's image."""
    image = np.eye(6, dtype=np.float32)
    text = image.copy()
    text[1] = text[0]
    objective = {"temperature": 0.02, "mask_duplicates": mask}
    dataset = ready(image, text)
    job, rows = answer(task="misalignment", dataset=dataset, methods=METHODS[:3], fit=None, objective=objective)
    succeeded(job)
    assert rows["0"]["pair_loss"] == pytest.approx(loss, abs=1e-6)


def test_where_all_captions_are_one_nothing_is_a_negative(ready: Ready, answer: Answer) -> None:
    image, text = embeddings()
    text[:] = text[0]
    job, rows = answer(task="valuation", dataset=ready(image, text), validation={"fraction": 0.2}, methods=METHODS)
    succeeded(job)
    assert {row["influence"] for row in rows.values()} == {row["pair_loss"] for row in rows.values()} == {0}


@pytest.mark.parametrize("task", ["misalignment", "valuation"])
@pytest.mark.parametrize("side", ["image", "text", "both"])
def test_an_embedding_of_zeros_has_similarity_0_to_everything(
    ready: Ready,
    answer: Answer,
    side: str,
    task: str,
) -> None:
    image, text = embeddings()
    if side != "text":
        image[3] = 0
    if side != "image":
        text[3] = 0
    clean = ready(*embeddings(8, seed=1))
    job, rows = answer(task=task, dataset=ready(image, text), validation={"dataset": clean}, methods=METHODS)
    succeeded(job)
    assert len(rows) == 24
    assert rows["3"]["clip_score"] == 0
    assert rows["3"]["pair_loss"] > 1


@pytest.mark.parametrize("train", [False, True])
def test_a_model_with_a_scale_over_100_is_held_at_100(
    upload: Upload,
    image_zip: ImageZip,
    work: Work,
    answer: Answer,
    train: bool,
) -> None:
    dataset = upload(image_zip(6))
    work()
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {"context_length": 8, "width": 16, "heads": 2, "layers": 1},
        "init_logit_scale": 9.0,
    }
    job, _ = answer(
        task="misalignment",
        dataset=dataset["id"],
        model={"architecture": config},
        objective={"batch_size": 4, "train_temperature": train},
        fit={"epochs": 3},
    )
    assert succeeded(job)["fit"]["temperature"] >= 0.01 * (1 - 1e-6)


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian", "ekfac", "identity"])
def test_damping_0_on_a_singular_curvature_is_refused_or_answered(ready: Ready, answer: Answer, curvature: str) -> None:
    """A scale of the embedding changes nothing, so every head has a direction without curvature but for l2."""
    job, rows = answer(
        task="valuation",
        dataset=ready(*embeddings()),
        validation={"fraction": 0.2},
        objective={"l2": 1e-30, "temperature": 0.2},
        influence={"damping": 0, "curvature": curvature},
        fit=None,
    )
    if job["status"] == "succeeded":
        assert len(rows) == 19
    else:
        assert (job["error"]["code"], job["error"]["param"]) in [
            ("singular_curvature", "influence.damping"),
            ("negative_curvature", "influence.curvature"),
        ]


def test_a_clean_set_of_one_pair_flags_nothing_and_says_what_is_needed(ready: Ready, answer: Answer) -> None:
    train, clean = ready(*embeddings()), ready(*embeddings(1, seed=1))
    job, rows = answer(task="misalignment", dataset=train, validation={"dataset": clean})
    summary = succeeded(job)
    assert summary["counts"]["calibration"] == summary["counts"]["validation"] == 1
    assert all(row["p_value"] in (0.5, 1.0) and not row["flagged"] for row in rows.values())
    said = [warning for warning in summary["warnings"] if warning.startswith("nothing is flagged: 1 clean pair cannot")]
    assert len(said) == 1


def one_caption(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> None:
    text[:] = text[0]


def one_other_caption(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> None:
    text[:-1] = text[0]


def one_image(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> None:
    image[:] = image[0]


def one_pair(image: npt.NDArray[Any], text: npt.NDArray[Any]) -> None:
    image[:], text[:] = image[0], text[0]


@pytest.mark.parametrize(
    ("n", "change", "says"),
    [
        (49, None, "suspicion was not learned: 49 pairs are fewer than the 50 from which mismatches are learned"),
        (60, one_caption, "suspicion was not learned: all captions are equal: there is no mismatch to learn from"),
        (60, one_pair, "suspicion was not learned: all captions are equal: there is no mismatch to learn from"),
        (60, one_other_caption, None),  # a single exchange, and every pair is scored by what it taught
        (60, one_image, None),  # columns that are the same for all but for their captions
    ],
    ids=["too few", "one caption", "one pair", "one other caption", "one image"],
)
def test_where_little_can_be_learned_all_pairs_are_ranked_and_the_summary_says_why(
    ready: Ready, answer: Answer, n: int, change: Callable[..., None] | None, says: str | None
) -> None:
    image, text = embeddings(n)
    if change is not None:
        change(image, text)
    job, rows = answer(task="misalignment", dataset=ready(image, text), methods=METHODS[:5], fit={"epochs": 3})
    summary = succeeded(job)
    assert [row["rank"] for row in rows.values()] == list(range(1, n + 1))
    assert all(row["suspicion"] is not None for row in rows.values())
    said = [warning for warning in summary["warnings"] if warning.startswith("suspicion was not learned")]
    assert said == ([f"{says}; its columns weigh the same"] if says is not None else [])
    assert (summary["suspicion"]["reason"] is None) == (says is None)
    assert (summary["suspicion"]["injected_auroc"] is None) == (says is not None)
    if says is not None:
        assert summary["stability"]["suspicion"] is None
        assert summary["counts"]["flagged"] == 0


LONG = "".join(chr(0x20000 + 37 * n % 40_000) for n in range(1000))
"""A key of 4,000 bytes that does not compress: PostgreSQL refuses it a place in an index."""


def archive(files: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return out.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tarred:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarred.addfile(member, io.BytesIO(content))
    return out.getvalue()


def table(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def with_keys(*keys: str) -> dict[str, bytes]:
    """Uploads of every kind whose pairs have these keys."""
    images = {f"{n}.png": picture(n) for n in range(len(keys))}
    rows = [{"file_name": f"{n}.png", "caption": "x", "key": key} for n, key in enumerate(keys)]
    vectors = embeddings(len(keys))
    columns = {"image": vectors[0].tolist(), "text": vectors[1].tolist(), "key": list(keys)}
    out = {name: io.BytesIO() for name in ("image.npy", "text.npy", "parquet", "images")}
    for name, matrix in zip(out, vectors, strict=False):
        np.save(out[name], matrix)
    pq.write_table(pa.table(columns), out["parquet"])
    pairs = {"jpg": [*images.values()], "caption": ["x"] * len(keys), "key": list(keys)}
    pq.write_table(pa.table(pairs), out["images"])
    matrices = {name: out[name].getvalue() for name in ("image.npy", "text.npy")}
    samples = {f"{key}.{kind}": content for key in keys for kind, content in (("png", picture(0)), ("txt", b"x"))}
    return {
        "folder": archive({**images, "metadata.jsonl": table(rows)}),
        "webdataset": tar(samples),
        "npy": archive({**matrices, "metadata.jsonl": table(rows)}),
        "parquet": out["images"].getvalue(),
        "parquet_embeddings": out["parquet"].getvalue(),
    }


@pytest.mark.parametrize("kind", ["folder", "webdataset", "npy", "parquet", "parquet_embeddings"])
def test_a_key_too_long_for_an_index_is_one_rejected_pair(
    client: TestClient, upload: Upload, work: Work, kind: str
) -> None:
    longest = LONG[:256]  # 1,024 bytes
    dataset = upload(with_keys("first", LONG, longest, longest)[kind], format=kind)
    work()
    ready = client.get(f"/datasets/{dataset['id']}").json()
    assert ready["status"] == "ready", ready["error"]
    pairs = client.get(f"/datasets/{dataset['id']}/pairs").json()["items"]
    (rejected,) = [pair for pair in pairs if pair["error"]]
    good = ["first", longest] if kind == "webdataset" else ["first", longest, f"{longest}#2"]  # of names, none repeats
    assert [pair["key"] for pair in pairs if not pair["error"]] == good
    assert (ready["pair_count"], ready["rejected_count"]) == (len(good), 1)
    assert "4000 bytes of UTF-8; 1024 is the most" in rejected["error"]
    assert LONG[:20] in rejected["error"]
