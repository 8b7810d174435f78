"""Uploads with something wrong in them: what is wrong is named and counted, and the good pairs stay."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.readers.writers import webdataset_shard, zip_of
from tests.service_fixtures import Upload, Work, picture

Ingested = Callable[..., tuple[dict[str, Any], list[str]]]
Shards = tuple[Path, Callable[[], bytes]]


def files_zip(files: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def sample(name: str, seed: int = 0) -> dict[str, Any]:
    return {f"{name}.png": picture(seed), f"{name}.txt": f"caption of {name}"}


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """A folder for shards, and how to send it: as one zip."""
    folder = tmp_path / "shards"
    folder.mkdir()
    return folder, lambda: zip_of(folder, tmp_path / "upload.zip").read_bytes()


@pytest.fixture
def ingested(client: TestClient, upload: Upload, work: Work) -> Ingested:
    def look(content: bytes, filename: str = "data.zip", **fields: Any) -> tuple[dict[str, Any], list[str]]:
        dataset = upload(content, filename, **fields)
        work()
        ingested = client.get(f"/datasets/{dataset['id']}").json()
        rejected = client.get(f"/datasets/{dataset['id']}/pairs", params={"rejected": True}).json()["items"]
        return ingested, [pair["error"] for pair in rejected]

    return look


def warned(dataset: dict[str, Any], *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in dataset["warnings"])


def test_a_missing_shard_is_named(shards: Shards, ingested: Ingested) -> None:
    folder, send = shards
    for number in (0, 2, 5):
        webdataset_shard(folder / f"{number:05d}.tar", 10 * number, 2)
    dataset, _ = ingested(send())
    assert (dataset["status"], dataset["pair_count"]) == ("ready", 6)
    assert dataset["summary"]["missing_shards"] == ["00001.tar", "00003.tar", "00004.tar"]
    assert warned(dataset, "gaps", "00001.tar, 00003.tar, 00004.tar")


def test_a_shard_that_was_cut_short_is_named_and_what_came_before_is_kept(shards: Shards, ingested: Ingested) -> None:
    folder, send = shards
    for number in range(3):
        webdataset_shard(folder / f"{number:05d}.tar", 10 * number, 3)
    with tarfile.open(folder / "00001.tar") as archive:
        second_sample = archive.getmembers()[3].offset_data
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[: second_sample + 1])
    dataset, reasons = ingested(send())
    assert dataset["pair_count"] == 7
    assert dataset["summary"]["rejected"]["unreadable_shard"] == 1
    assert any(reason.startswith("00001.tar: unreadable archive: it ends too early") for reason in reasons)


def test_a_shard_that_is_no_tar_is_named_and_the_others_are_kept(shards: Shards, ingested: Ingested) -> None:
    folder, send = shards
    webdataset_shard(folder / "00000.tar", 0, 2)
    (folder / "00001.tar").write_bytes(b"<html>404</html>" * 100)
    dataset, reasons = ingested(send())
    assert (dataset["pair_count"], dataset["summary"]["rejected"]) == (2, {"unreadable_shard": 1})
    assert reasons == ["00001.tar: unreadable archive: the header at byte 0 is broken"]


def test_keys_that_repeat_across_shards_are_told_apart_and_counted(
    client: TestClient,
    shards: Shards,
    ingested: Ingested,
) -> None:
    folder, send = shards
    for number in range(3):
        webdataset_shard(folder / f"{number:05d}.tar", 0, 2)
    dataset, _ = ingested(send())
    pairs = client.get(f"/datasets/{dataset['id']}/pairs").json()["items"]
    zero, one = "000000000", "000000001"
    assert [pair["key"] for pair in pairs] == [zero, one, f"{zero}#2", f"{one}#2", f"{zero}#3", f"{one}#3"]
    assert dataset["summary"]["repeated_keys"] == 4
    assert warned(dataset, "4 keys were given before", zero)
    assert dataset["summary"]["duplicates"]["image"] == {"groups": 2, "pairs": 6}


def test_halves_of_pairs_are_counted_by_what_they_lack(
    ingested: Ingested,
) -> None:
    halves = {"a.png": picture(1), "b.txt": "no image", "c.json": b"{}"}
    dataset, reasons = ingested(files_zip(sample("good") | halves))
    assert (dataset["pair_count"], dataset["summary"]["rejected"]) == (1, {"no_caption": 1, "no_image": 2})
    assert sorted(reasons) == [
        "a.png: no caption (.txt or .json) beside it",
        "b.txt: no image beside it",
        "c.json: no image beside it",
    ]


def npy(rows: int) -> bytes:
    out = io.BytesIO()
    np.save(out, np.eye(rows, 4, dtype=np.float32))
    return out.getvalue()


@pytest.mark.parametrize(
    ("files", "read_as", "left_out"),
    [
        (
            {"metadata.csv": "file_name,caption\na.png,x\n", "t/b.png": picture(1), "t/b.txt": "y"},
            "folder",
            {"captions beside images": 1},
        ),
        ({"image.npy": npy(3), "text.npy": npy(3), "x.safetensors": b"?"}, "npy", {".safetensors": 1, "images": 1}),
        (sample("b") | {"image.npy": npy(3), "other.csv": "a,b\n"}, "webdataset", {".csv": 1, ".npy": 1}),
        ({"cat/1.png": picture(1), "dog/2.png": picture(2), "x.parquet": b"?"}, None, {}),
    ],
)
def test_a_mixture_is_read_as_one_format_and_says_what_was_left_out(
    ingested: Ingested,
    files: dict[str, Any],
    read_as: str | None,
    left_out: dict[str, Any],
) -> None:
    dataset, _ = ingested(files_zip({"a.png": picture(0)} | files))
    if read_as is None:  # images of two depths beside a parquet: nothing that could be read
        assert dataset["error"]["code"] == "unknown_format"
        return
    assert (dataset["status"], dataset["format"]) == ("ready", read_as), dataset["error"]
    assert dataset["summary"]["left_out"] == left_out
    assert warned(dataset, "mixture", f"read as {read_as}")


def test_images_with_nothing_beside_them_are_told_what_was_looked_for(
    ingested: Ingested,
) -> None:
    dataset, _ = ingested(files_zip({f"images/{n}.png": picture(n) for n in range(3)}))
    assert (dataset["status"], dataset["error"]["code"]) == ("failed", "unknown_format")
    for looked_for in ("3 .png", "metadata.csv, .tsv, .jsonl or .parquet", "filepath", ".txt or .json", "classes"):
        assert looked_for in dataset["error"]["message"]


def test_one_folder_of_images_can_be_named_a_class(ingested: Ingested) -> None:
    dataset, _ = ingested(files_zip({f"cat/{n}.png": picture(n) for n in range(3)}), format="imagefolder")
    assert (dataset["status"], dataset["summary"]["labels"]) == ("ready", {"cat": 3})


def test_bounds_hold_over_all_shards_together(tmp_path: Path) -> None:
    from readers.limits import Limits
    from readers.refusals import UploadRefused
    from readers.upload import UploadReader

    (tmp_path / "shards").mkdir()
    for number in range(3):
        webdataset_shard(tmp_path / "shards" / f"{number}.tar", 10 * number, 4)
    path = zip_of(tmp_path / "shards", tmp_path / "upload.zip")
    for limits, code in (
        (Limits(max_members=30), "too_many_members"),
        (Limits(max_index_bytes=1500), "too_many_members"),
        (Limits(max_total_bytes=40_000), "too_large"),
    ):
        with pytest.raises(UploadRefused) as caught, UploadReader(path, limits=limits) as reader:
            list(reader)
        assert caught.value.code == code


def test_only_one_level_is_opened(tmp_path: Path, ingested: Ingested) -> None:
    webdataset_shard(tmp_path / "0.tar", 0, 2)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(tmp_path / "0.tar", "0.tar")
    dataset, _ = ingested(files_zip({"00000.tar": out.getvalue()}))
    assert dataset["error"]["code"] == "unknown_format"
    assert "an archive of 1 .tar with 1 .tar" in dataset["error"]["message"]


def test_a_caption_longer_than_the_model_reads_is_cut_and_counted(
    client: TestClient, upload: Upload, work: Work
) -> None:
    rows = [{"file_name": f"{n}.png", "caption": "word " * (200 if n < 2 else 3)} for n in range(6)]
    files = {"metadata.jsonl": "\n".join(map(json.dumps, rows))} | {f"{n}.png": picture(n) for n in range(6)}
    dataset = upload(files_zip(files))
    spec = {
        "task": "misalignment",
        "dataset": dataset["id"],
        "model": {"architecture": "tiny", "pretrained": None},
        "methods": ["clip_score"],
        "fit": None,
    }
    job = client.post("/jobs", json=spec).json()
    work()
    summary = client.get(f"/jobs/{job['id']}").json()["summary"]
    assert summary["counts"]["truncated_captions"] == 2
    assert any("2 captions are longer than the model reads" in warning for warning in summary["warnings"])
