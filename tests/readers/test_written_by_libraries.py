"""Data sets written by webdataset, datasets and pyarrow, and by hand where a library only copies files."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from readers.formats.registry import Format
from readers.limits import Limits
from tests.readers.conftest import ReadUpload, Refusal
from tests.readers.writers import about, img2dataset_tar, jpeg, stats, webdataset_shard, zip_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def img2dataset(folder: Path, layout: str) -> Path:
    """Two shards of two samples, as img2dataset leaves them; the layout is its `output_format`."""
    for shard, numbers in enumerate((range(2), range(10_000, 10_002))):
        name = folder / f"{shard:05d}"
        stats(folder / f"{shard:05d}_stats.json")
        rows = [about(n) for n in numbers]
        if layout == "parquet":
            rows = [{**row, "jpg": jpeg(n)} for row, n in zip(rows, numbers, strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), name.with_suffix(".parquet"))
        if layout == "webdataset":
            img2dataset_tar(name.with_suffix(".tar"), numbers)
        if layout == "files":
            tar = folder.parent / "shard.tar"
            img2dataset_tar(tar, numbers)
            with tarfile.open(tar) as archive:
                archive.extractall(name, filter="data")
    return folder


@pytest.mark.parametrize("layout", ["webdataset", "files", "parquet"])
def test_what_img2dataset_leaves(folder: Path, tmp_path: Path, read: ReadUpload, layout: str) -> None:
    found = read(zip_of(img2dataset(folder, layout), tmp_path / "upload.zip"))
    assert found.format is (Format.PARQUET if layout == "parquet" else Format.WEBDATASET)
    assert found.keys == ["000000000", "000000001", "000010000", "000010001"]
    assert [pair.caption for pair in found.pairs] == ["picture 0", "picture 1", "picture 10000", "picture 10001"]
    assert [pair.image for pair in found.pairs] == [jpeg(n) for n in (0, 1, 10_000, 10_001)]
    assert found.pairs[0].extra["url"] == "http://example.org/0.jpg"
    assert (found.reasons, found.missing_shards, found.left_out) == ([], (), {})


def test_a_download_that_failed_says_why(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    row = {**about(0), "jpg": None, "status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}
    pq.write_table(pa.Table.from_pylist([row, {**about(1), "jpg": jpeg(1)}]), tmp_path / "00000.parquet")
    found = read(tmp_path / "00000.parquet", filename="00000.parquet")
    assert found.keys == ["000000001"]
    assert found.reasons == ["row 1 of 00000.parquet: no image (failed_to_download HTTP Error 404: Not Found)"]
    assert found.rejected[0].rejection == "no_image"


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("packed", ["stored zip", "deflated zip", "tar"])
def test_an_archive_of_webdataset_shards_is_one_data_set(
    folder: Path, tmp_path: Path, read: ReadUpload, packed: str, ending: str
) -> None:
    for shard in range(3):
        webdataset_shard(folder / f"{shard:05d}{ending}", 4 * shard, 4)
    assert ((folder / f"00000{ending}").read_bytes()[:2] == b"\x1f\x8b") == (ending == ".tar.gz")
    if packed == "tar":
        with tarfile.open(tmp_path / "upload", "w") as archive:
            archive.add(folder, "train")
    else:
        zip_of(folder, tmp_path / "upload", zipfile.ZIP_STORED if packed == "stored zip" else zipfile.ZIP_DEFLATED)
    shutil.rmtree(folder)
    found = read(tmp_path / "upload")
    assert (found.format, found.total) == (Format.WEBDATASET, 12)
    assert found.keys == [f"{n:09d}" for n in range(12)]
    assert [pair.image for pair in found.pairs] == [jpeg(n) for n in range(12)]
    assert [path.name for path in tmp_path.iterdir()] == ["upload"], "something was left behind"


def image_folder(folder: Path) -> None:
    for n in range(6):
        path = folder / ("golden_retriever", "cat")[n % 2] / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(n))


def test_an_image_folder_has_the_labels_that_datasets_reads(
    folder: Path, tmp_path: Path, read: ReadUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    image_folder(folder)
    split = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    names = split.features["label"].names
    wanted = {row["path"].rsplit("/", 1)[1]: names[label] for row, label in _paths(split)}
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert found.format is Format.IMAGE_FOLDER
    assert {pair.key.rsplit("/", 1)[1]: pair.extra["label"] for pair in found.pairs} == wanted
    assert {pair.caption for pair in found.pairs} == {"a photo of a golden retriever", "a photo of a cat"}


def _paths(split: Any) -> list[tuple[Any, Any]]:
    split = split.cast_column("image", datasets.Image(decode=False))
    return [(row["image"], row["label"]) for row in split]


def test_the_template_of_an_image_folder_is_the_uploaders(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    image_folder(folder)
    found = read(zip_of(folder, tmp_path / "upload.zip"), caption_template="{label}, seen from {label}'s side")
    assert found.pairs[0].caption == "cat, seen from cat's side"


def test_parquet_as_datasets_writes_it(tmp_path: Path, read: ReadUpload) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
    rows = {"image": [jpeg(0), jpeg(1)], "caption": [["one", "two"], ["three"]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00003.parquet")
    found = read(tmp_path / "train-00000-of-00003.parquet", filename="train-00000-of-00003.parquet")
    assert [(pair.key, pair.caption, pair.image) for pair in found.pairs] == [
        ("0", "one", jpeg(0)),
        ("0#2", "two", jpeg(0)),
        ("1", "three", jpeg(1)),
    ]
    assert found.repeated_keys == 0
    assert found.missing_shards == ("train-00001-of-00003.parquet", "train-00002-of-00003.parquet")


def test_metadata_parquet_as_datasets_writes_it(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    rows: dict[str, list[Any]] = {"file_name": ["a.jpg", "b.jpg"], "caption": ["a cat", "a dog"], "label": [0, 1]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "metadata.parquet")
    for n, name in enumerate(rows["file_name"]):
        (folder / name).write_bytes(jpeg(n))
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert (found.format, found.keys) == (Format.FOLDER, ["a.jpg", "b.jpg"])
    assert [pair.extra for pair in found.pairs] == [{"label": 0}, {"label": 1}]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_as_the_zip_of_npy_that_it_is(
    tmp_path: Path, read: ReadUpload, save: Callable[..., None]
) -> None:
    image, text = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    save(tmp_path / "embeddings.npz", image=image, text=text)
    found = read(tmp_path / "embeddings.npz", filename="embeddings.npz")
    assert found.format is Format.NPY
    np.testing.assert_array_equal(found.blocks[0].image, image)
    np.testing.assert_array_equal(found.blocks[0].text, text)


def test_an_npz_with_a_pickle_in_it_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    np.savez(tmp_path / "x.npz", image=np.array([{"a": 1}], dtype=object), text=np.ones((1, 2)))
    refused = refusal(tmp_path / "x.npz", filename="x.npz")
    assert refused.code == "pickle_refused"


def embedding_rows(n: int, width: int = 4) -> tuple[npt.NDArray[Any], npt.NDArray[Any], dict[str, list[Any]]]:
    image, text = np.random.default_rng(0).normal(size=(2, n, width)).astype(np.float32)
    rows: dict[str, list[Any]] = {
        "uid": [f"u{i}" for i in range(n)],
        "text": [f"text {i}" for i in range(n)],
        "score": list(range(n)),
    }
    return image, text, rows


@pytest.mark.parametrize("kind", ["fixed", "variable", "large", "half"])
def test_embeddings_in_columns_of_parquet(tmp_path: Path, read: ReadUpload, kind: str) -> None:
    image, text, rows = embedding_rows(7)
    wanted = {
        "fixed": pa.list_(pa.float32(), 4),
        "variable": pa.list_(pa.float64()),
        "large": pa.large_list(pa.float32()),
        "half": pa.list_(pa.float16()),
    }[kind]
    if kind == "half":
        image, text = image.astype(np.float16), text.astype(np.float16)
    table = pa.table(rows | {"image_embedding": _lists(image, wanted), "text_embedding": _lists(text, wanted)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    found = read(tmp_path / "x.parquet", filename="x.parquet", limits=Limits(block_rows=2))
    assert (found.format, found.kind, found.total) == (Format.PARQUET_EMBEDDINGS, "embeddings", 7)
    np.testing.assert_array_equal(np.concatenate([block.image for block in found.blocks]), image.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([block.text for block in found.blocks]), text.astype(np.float32))
    assert [key for block in found.blocks for key in block.keys] == rows["uid"]
    assert [caption for block in found.blocks for caption in block.captions] == rows["text"]
    assert found.blocks[0].extras == [{"score": 0}, {"score": 1}]


def _lists(matrix: npt.NDArray[Any], kind: Any) -> Any:
    return pa.array([list(row) for row in matrix], kind)


def test_embeddings_as_datasets_writes_them(tmp_path: Path, read: ReadUpload) -> None:
    image, text, rows = embedding_rows(5)
    features = datasets.Features(
        {name: datasets.List(datasets.Value("float32"), length=4) for name in ("img_emb", "txt_emb")}
        | {"key": datasets.Value("string")}
    )
    made = datasets.Dataset.from_dict({"img_emb": image, "txt_emb": text, "key": rows["uid"]}, features=features)
    made.to_parquet(tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", format="parquet")
    np.testing.assert_array_equal(found.blocks[0].image, image)
    assert found.blocks[0].keys == rows["uid"]


def test_embeddings_that_are_none_are_turned_away(tmp_path: Path, read: ReadUpload) -> None:
    good = [1.0, 2.0]
    image = [good, None, [1.0], [1.0, float("nan")], [1.0, None], good]
    text = [good, good, good, good, good, []]
    pq.write_table(pa.table({"image_embedding": image, "text_embedding": text}), tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", filename="x.parquet")
    assert [block.keys for block in found.blocks] == [["0"]]
    assert found.reasons == [
        "row 2 of x.parquet: no image embedding",
        "row 3 of x.parquet: its image embedding has 1 numbers, not 2",
        "row 3: the image embedding holds NaN or an infinity",
        "row 4: the image embedding holds NaN or an infinity",
        "row 6 of x.parquet: its text embedding has 0 numbers, not 2",
    ]
    assert {pair.rejection for pair in found.rejected} == {"unfit_embedding"}


@pytest.mark.parametrize(
    ("columns", "code", "said"),
    [
        (("image_a", "image_b", "text"), "ambiguous_upload", "several columns of image embeddings: image_a, image_b"),
        (("image_a",), "missing_column", "no column of images"),
    ],
)
def test_columns_of_embeddings_that_cannot_be_told_apart(
    tmp_path: Path, refusal: Refusal, columns: tuple[str, ...], code: str, said: str
) -> None:
    pq.write_table(pa.table({name: [[1.0, 2.0]] for name in columns}), tmp_path / "x.parquet")
    refused = refusal(tmp_path / "x.parquet", filename="x.parquet")
    assert (refused.code, said in refused.message) == (code, True), refused.message


def datacomp(path: Path, n: int = 3) -> None:
    """DataComp's metadata: addresses of images and texts."""
    rows = [
        {"uid": f"{i:032x}", "url": f"http://x/{i}", "text": f"text {i}", "clip_l14_similarity": 0.3} for i in range(n)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_datacomp_metadata_says_that_it_holds_no_images(tmp_path: Path, refusal: Refusal) -> None:
    datacomp(tmp_path / "00.parquet")
    refused = refusal(tmp_path / "00.parquet", filename="00.parquet")
    assert refused.code == "images_not_included"
    assert "addresses of images (column url)" in refused.message
    assert "img2dataset" in refused.message


def test_datacomp_metadata_beside_embeddings_describes_them(folder: Path, tmp_path: Path, read: ReadUpload) -> None:
    datacomp(folder / "00.parquet")
    image, text, _ = embedding_rows(3)
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", text)
    found = read(zip_of(folder, tmp_path / "upload.zip"))
    assert (found.format, found.left_out) == (Format.NPY, {})
    assert found.blocks[0].keys == [f"{i:032x}" for i in range(3)]
    assert found.blocks[0].captions == ["text 0", "text 1", "text 2"]
    assert found.blocks[0].extras[0]["url"] == "http://x/0"
