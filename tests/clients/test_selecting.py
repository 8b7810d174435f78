"""`select()`: samples of a webdataset are dropped by the verdicts of a job, by webdataset itself and by open_clip's
pipeline, and no image is copied."""

import gc
import io
import json
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from ecif_client import Client, UsageError, select
from tests.service.exporting import World
from tests.service_fixtures import picture

SHARDS = ("00000.tar", "00001.tar")
PER_SHARD = 20


def shard(number: int) -> bytes:
    """Both shards number their samples alike; every second one has a key of its own in its .json."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(PER_SHARD):
            sample = {"jpg": picture(number * PER_SHARD + n), "txt": f"picture {n} of shard {number}".encode()}
            if n % 2:
                sample["json"] = json.dumps({"key": f"own-{number}-{n}"}).encode()
            for suffix, content in sample.items():
                about = tarfile.TarInfo(f"{n:04d}.{suffix}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The shards where a training reads them."""
    folder = tmp_path_factory.mktemp("train")
    for number, name in enumerate(SHARDS):
        (folder / name).write_bytes(shard(number))
    return [str(folder / name) for name in SHARDS]


@pytest.fixture(scope="module")
def judged(world: World, shards: list[str]) -> str:
    """A job on both shards as one upload, that flags some of the pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in shards:
            tar.add(path, f"train/{Path(path).name}")
    dataset = world.upload(out.getvalue(), "train.tar")
    return world.job(
        dataset=dataset,
        model={"architecture": "tiny", "pretrained": None},
        flag={"false_discovery_rate": 0.9},
    )


@pytest.fixture(scope="module")
def verdicts(world: World, server: str, judged: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verdicts") / "verdicts.jsonl"
    with Client(server) as client:
        client.export(judged, path, format="verdicts")
    assert path.read_bytes() == world.client.get(f"/jobs/{judged}/verdicts").content
    return path


def rows(verdicts: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in verdicts.read_text().splitlines()]


def test_there_is_a_verdict_for_every_sample_by_its_own_name(verdicts: Path, world: World, judged: str) -> None:
    named = {(row["shard"], row["key"]): row for row in rows(verdicts)}
    assert set(named) == {(f"train/{name}", f"{n:04d}") for name in SHARDS for n in range(PER_SHARD)}
    assert all(set(row) == {"shard", "key", "verdict", "suspicion"} for row in named.values())
    results = world.results(judged)
    assert [row["verdict"] == "drop" for row in rows(verdicts)] == [row["flagged"] for row in results]
    assert {"own-0-1", "own-1-1", "0000", "0000#2"} <= {row["key"] for row in results}
    assert len(verdicts.read_bytes()) < 150 * len(results)  # and no image


def some(verdicts: Path) -> list[dict[str, Any]]:
    """The verdicts, where the job flagged nothing or all with every third to be dropped."""
    lines = rows(verdicts)
    return [{**line, "verdict": "drop" if n % 3 == 0 else "keep"} for n, line in enumerate(lines)]


def expected(lines: list[dict[str, Any]], verdict: str) -> set[tuple[str, str]]:
    return {(Path(line["shard"]).name, line["key"]) for line in lines if line["verdict"] == verdict}


def all_of(samples: Any) -> list[Any]:
    """The library leaves the files that it has read to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        listed = list(samples)
        del samples
        gc.collect()
    return listed


def seen(samples: Any) -> set[tuple[str, str]]:
    return {(Path(sample["__url__"]).name, sample["__key__"]) for sample in samples}


def as_stage(shards: list[str], chosen: Any) -> Any:
    return wds.WebDataset(shards, shardshuffle=False).compose(chosen)


def as_predicate(shards: list[str], chosen: Any) -> Any:
    return wds.WebDataset(shards, shardshuffle=False).select(chosen.keeps)


def as_pipeline(shards: list[str], chosen: Any) -> Any:
    return wds.DataPipeline(wds.SimpleShardList(shards), wds.tarfile_to_samples(), chosen)


def as_open_clip(shards: list[str], chosen: Any) -> Any:
    from open_clip_train import data

    return wds.DataPipeline(
        wds.SimpleShardList(shards),
        wds.split_by_worker,
        data.tarfile_to_samples_nothrow,
        chosen,
        wds.select(data.filter_no_caption_or_no_image),
    )


@pytest.mark.parametrize("form", [as_stage, as_predicate, as_pipeline, as_open_clip])
def test_a_loader_gives_the_clean_samples_alone(
    shards: list[str], verdicts: Path, form: Callable[[list[str], Any], Any]
) -> None:
    lines = some(verdicts)
    chosen = pickle.loads(pickle.dumps(select(lines)))  # noqa: S301  as workers of a loader get it
    before = [Path(path).read_bytes() for path in shards]
    samples = all_of(form(shards, chosen))
    assert seen(samples) == expected(lines, "keep")
    assert len(samples) == sum(line["verdict"] == "keep" for line in lines) > 0
    assert [Path(path).read_bytes() for path in shards] == before
    assert seen(all_of(form(shards, select(lines, keep="flagged")))) == expected(lines, "drop")


def test_what_is_dropped_is_not_decoded(shards: list[str], verdicts: Path) -> None:
    lines = some(verdicts)
    decoded = []

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        decoded.append(sample["__key__"])
        return sample

    kept = all_of(wds.WebDataset(shards, shardshuffle=False).compose(select(lines)).map(decode))
    assert len(decoded) == len(kept) < len(lines)


def verdict(shard: str | None, key: str, word: str) -> dict[str, Any]:
    return {"shard": shard, "key": key, "verdict": word}


def keeps(lines: list[dict[str, Any]], url: str, key: str, **options: Any) -> bool:
    return select(lines, **options).keeps({"__url__": url, "__key__": key})


@pytest.mark.parametrize(
    "url",
    [
        "train/a.tar",
        "/data/train/a.tar",
        "https://host/x/train/a.tar?X-Signature=a%2Fb#c",
        "pipe:aws s3 cp s3://bucket/train/a.tar -",
        "pipe:curl -s 'https://host/train/a.tar?sig=/other/b.tar'",
    ],
)
def test_a_shard_is_known_by_the_end_of_its_address(url: str) -> None:
    lines = [verdict("train/a.tar", "1", "drop"), verdict("other/a.tar", "1", "keep"), verdict("a.tar", "2", "drop")]
    assert not keeps(lines, url, "1")
    assert keeps(lines, url, "2")  # of a.tar elsewhere: the longer name counts
    assert keeps(lines, "/data/strain/a.tar", "1")  # no border of a folder
    assert not keeps(lines, "/data/strain/a.tar", "2")


def test_folders_may_have_other_names_where_that_leaves_one_shard() -> None:
    lines = [verdict("train/a.tar", "1", "drop"), verdict("train/b.tar", "1", "keep")]
    assert not keeps(lines, "/elsewhere/a.tar", "1")
    two = [verdict("x/a.tar", "1", "drop"), verdict("y/a.tar", "1", "keep")]
    assert not keeps(two, "/data/x/a.tar", "1")
    with pytest.raises(UsageError, match=r"may be any of x/a\.tar, y/a\.tar"):
        keeps(two, "/data/z/a.tar", "1")


def test_a_sample_that_nobody_judged_is_kept_unless_it_is_not_to_be() -> None:
    lines = [verdict("a.tar", "1", "keep"), verdict("a.tar", "2", "drop")]
    assert keeps(lines, "a.tar", "3")
    assert keeps(lines, "b.tar", "2")
    assert not keeps(lines, "a.tar", "3", unknown="drop")
    assert not keeps(lines, "b.tar", "1", unknown="drop")
    assert keeps(lines, "a.tar", "1", unknown="drop")
    assert not keeps([verdict(None, "1", "drop")], "any.tar", "1")  # of what has no shards


def test_what_is_no_list_of_verdicts_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"shard": "a.tar", "key": "1", "verdict": "keep"}\n{"rank": 1}\n')
    with pytest.raises(UsageError, match=r"x\.jsonl, line 2: no verdict"):
        select(tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match="no such file"):
        select(tmp_path / "y.jsonl")
    with pytest.raises(UsageError, match="before the samples are made into tuples"):
        select([]).keeps({"jpg": b""})


def test_a_job_that_judges_nothing_has_no_verdicts(client: Client, world: World, job: str) -> None:
    dataset = client.job(job)["spec"]["dataset"]
    valued = world.job(task="valuation", dataset=dataset, validation={"fraction": 0.2})
    problem = world.client.get(f"/jobs/{valued}/verdicts").json()
    assert (problem["status"], problem["code"]) == (409, "nothing_flagged")
    plain = [json.loads(line) for line in world.client.get(f"/jobs/{job}/verdicts").text.splitlines()]
    assert {line["shard"] for line in plain} == {None}
