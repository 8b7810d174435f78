"""What is exported is read by the tools that it is for, and comes back in as the same pairs."""

import io
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import open_clip
import pandas
import pytest
import torch
import webdataset
from open_clip_train import data as open_clip_data
from open_clip_train.params import parse_args
from pyarrow import parquet

from encoders.architectures import TINY_CONFIG
from encoders.construction import build
from tests.service.exporting import ROWS, World
from tests.service_fixtures import picture

CAPTIONS = {row["file_name"]: row["caption"] for row in ROWS}
IMAGES = {row["file_name"]: sha256(picture(n)).hexdigest() for n, row in enumerate(ROWS)}


@pytest.fixture
def exported(world: World, job: str, tmp_path: Path) -> Callable[[str], Path]:
    def write(form: str) -> Path:
        path = tmp_path / f"{form}.tar"
        path.write_bytes(world.export(job, form))
        return path

    return write


# webdataset leaves the closing of its streams to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_webdataset(exported: Callable[[str], Path]) -> None:
    samples = list(webdataset.WebDataset(str(exported("webdataset")), shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["rank"] for sample in samples] == list(range(1, 13))
    for sample in samples:
        key = sample["json"]["key"]
        assert sample["txt"] == CAPTIONS[key]
        assert sample["png"].shape == (32, 32, 3)
    raw = webdataset.WebDataset(str(exported("webdataset")), shardshuffle=False)
    assert sorted(sha256(sample["png"]).hexdigest() for sample in raw) == sorted(IMAGES.values())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", ["webdataset", "open_clip"])
def test_open_clip_trains_from_it(
    exported: Callable[[str], Path], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own arguments, loaders, tokenizer and loss; only the model is small."""
    path = exported(form)
    if form == "open_clip":
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path, filter="data")
        path = Path("pairs.tsv")
        monkeypatch.chdir(tmp_path)
    arguments = ["--train-data", str(path), "--train-num-samples", "12", "--batch-size", "4", "--workers", "0"]
    args = parse_args([*arguments, "--dataset-type", "auto", "--model", "tiny"])
    args.distributed, args.world_size = False, 1
    transform = open_clip.image_transform(32, is_train=True)
    tokenizer = open_clip.SimpleTokenizer(context_length=TINY_CONFIG["text_cfg"]["context_length"])
    # Of the loader's pinned memory there is none here.
    monkeypatch.setattr(open_clip_data, "DataLoader", lambda *a, pin_memory, **k: torch.utils.data.DataLoader(*a, **k))
    train = open_clip_data.get_data(args, (transform, transform), tokenizer=tokenizer)["train"]
    assert (train.dataloader.num_samples, train.dataloader.num_batches) == (12, 3)
    model = build(TINY_CONFIG, seed=0, max_parameters=10**9).train()
    before = [weight.detach().clone() for weight in model.parameters()]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    loss = open_clip.ClipLoss()
    steps = 0
    for images, texts in train.dataloader:
        assert (images.shape, texts.shape) == ((4, 3, 32, 32), (4, 16))
        value = loss(*model(images, texts)[:3])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        assert value.isfinite()
        steps += 1
    assert steps == 3
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_captions_that_open_clip_reads_are_exact(
    exported: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(exported("open_clip")) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    read = open_clip_data.CsvDataset("pairs.tsv", None, "filepath", "title")
    keys = pandas.read_csv("pairs.tsv", sep="\t")["key"]
    for key, file, caption in zip(keys, read.images, read.captions, strict=True):
        assert caption == CAPTIONS[key]
        assert sha256((tmp_path / file).read_bytes()).hexdigest() == IMAGES[key]


@pytest.mark.parametrize("form", ["webdataset", "open_clip"])
def test_what_is_imported_again_is_the_same(world: World, exported: Callable[[str], Path], form: str) -> None:
    dataset = world.upload(exported(form).read_bytes(), f"{form}.tar")
    uploaded = world.client.get(f"/datasets/{dataset}").json()
    assert uploaded["format"] == {"webdataset": "webdataset", "open_clip": "open_clip_csv"}[form]
    assert (uploaded["pair_count"], uploaded["rejected_count"]) == (12, 0)
    pairs = world.client.get(f"/datasets/{dataset}/pairs").json()["items"]
    assert {pair["key"]: pair["caption"] for pair in pairs} == CAPTIONS
    for pair in pairs:
        image = world.client.get(f"/datasets/{dataset}/pairs/{pair['key']}/image").content
        assert sha256(image).hexdigest() == IMAGES[pair["key"]]
        came = next(row for row in ROWS if row["file_name"] == pair["key"])
        label = came["label"] if form == "webdataset" else str(came["label"])
        assert (pair["extra"]["label"], pair["extra"]["uid"]) == (label, came["uid"])
        assert pair["extra"]["input_rank"] == came["rank"]


def test_pandas_reads_the_tables(world: World, job: str) -> None:
    tables = [
        pandas.read_csv(io.BytesIO(world.export(job, "csv"))),
        parquet.read_table(io.BytesIO(world.export(job, "parquet"))).to_pandas(),
    ]
    for table in tables:
        assert set(table.columns) ^ set(tables[1].columns) <= {"+formula", "'+formula"}
        assert list(table["rank"]) == list(range(1, 13))
        assert list(table["suspicion"]) == [row["suspicion"] for row in world.results(job)]
        assert sorted(table["label"]) == sorted(row["label"] for row in ROWS)
