"""Data for the detection table: wrong pairs are wrong, right ones right, and a seed gives the same bytes."""

import csv
import io
import os
import random
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.detection import digits, emoji, photos, scenes
from benchmarks.detection.data import KINDS, NOISES, Noisy, NoPhotos, noisy

CELLS = [(kind, noise) for kind in KINDS for noise in NOISES[kind]]
ON_THIS_MACHINE = os.environ.get(photos.VARIABLE)


def small(kind: str, noise: str, rate: float | None = 0.25, seed: int = 3) -> Noisy:
    return noisy(kind, noise, rate, seed, n=120, n_clean=20, n_reserved=40, n_pool=30)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """250 plain pictures in the layout of the photographs; every fifth person errs."""
    classes = tuple(photos.FLIPS)
    rows = []
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for place in range(250):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (place, 90, 255 - place)).save(content, "PNG")
            member = tarfile.TarInfo(f"{place:05}.png")
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
            true, other = classes[place % 10], classes[(place + 3) % 10]
            rows.append([member.name, true, true, other if place % 5 == 0 else true, other if place % 2 else true])
    with (tmp_path / "labels.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([["image", "true", "aggregate", "one_person", "worst_of_three"], *rows])
    monkeypatch.setenv(photos.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("kind", "noise"), CELLS)
def test_what_a_cell_holds(folder: Path, kind: str, noise: str) -> None:
    data = small(kind, noise, None if noise.startswith("human") else 0.25)
    parts = [data.images, data.clean.images, data.pool.images]
    assert [len(part) for part in parts] == [120, 20, 30]
    assert all(part.dtype == torch.uint8 and part.shape[1:] == (32, 32, 3) for part in parts)
    assert len(torch.cat(parts).flatten(1).unique(dim=0)) == 170
    assert [label != shown for label, shown in zip(data.labels, data.shown, strict=True)] == data.wrong.tolist()
    assert int(data.reserved.sum()) == 40
    assert not (data.wrong & data.reserved).any()
    assert len(data.captions) == len(data.labels) == len(data.shown) == 120
    if noise.startswith("human"):
        assert bool(data.wrong.any()) == (noise != "human_aggregate")
    else:
        assert int(data.wrong.sum()) == 20
    for part in (data.clean, data.pool):
        assert set(part.near) == set(part.labels)
        assert all(label not in near and set(near) <= set(part.labels) for label, near in part.near.items())


@pytest.mark.parametrize(("kind", "noise"), CELLS)
def test_a_seed_gives_the_same_bytes_and_another_seed_others(folder: Path, kind: str, noise: str) -> None:
    one, again, other = small(kind, noise), small(kind, noise), small(kind, noise, seed=4)
    assert (one.captions, one.labels, one.shown, one.clean.captions) == (
        *(again.captions, again.labels, again.shown, again.clean.captions),
    )
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.pool.images, again.pool.images)
    assert one.captions != other.captions
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize("kind", ["digits", "scenes", "emoji"])
def test_a_near_caption_is_another_pairs_and_near(kind: str) -> None:
    data, right = small(kind, "near"), small(kind, "near", 0)
    assert not right.wrong.any()
    assert data.shown == right.shown
    near = {"digits": digits.DIGITS, "scenes": scenes.SCENES, "emoji": emoji.EMOJI}[kind].near(right.labels)
    for place in data.wrong.nonzero()[:, 0].tolist():
        assert data.labels[place] in near[data.shown[place]]
        assert data.captions[place] in right.captions


@pytest.mark.parametrize("kind", KINDS)
def test_a_shuffle_keeps_the_captions_that_there_are(folder: Path, kind: str) -> None:
    assert sorted(small(kind, "shuffled").captions) == sorted(small(kind, "shuffled", 0).captions)


def test_wrong_pairs_are_drawn_evenly() -> None:
    wrong = [small("scenes", "shuffled", seed=seed).wrong for seed in range(12)]
    halves = torch.stack(wrong).sum(0).view(2, -1).sum(1)
    assert int(halves.sum()) == 240
    assert int(halves.min()) > 80


def test_a_flip_goes_by_the_table() -> None:
    data = small("digits", "class_flip", 1.0)
    assert int(data.wrong.sum()) == 80
    for label, shown, wrong in zip(data.labels, data.shown, data.wrong.tolist(), strict=True):
        assert label == (digits.FLIPS[shown] if wrong else shown)


@pytest.mark.parametrize(
    ("flips", "near"), [(digits.FLIPS, digits.NEAR), (photos.FLIPS, photos.NEAR)], ids=["digits", "photos"]
)
def test_tables_name_other_labels_of_the_kind(flips: dict[str, str], near: dict[str, tuple[str, ...]]) -> None:
    assert set(flips) == set(near)
    for label, flip in flips.items():
        assert label not in {flip, *near[label]}
        assert {flip, *near[label]} <= set(flips)


def test_where_pictures_are_few_the_pool_gets_what_is_left_and_a_quarter_at_the_least() -> None:
    def sizes(data: Noisy) -> list[int]:
        return [len(data.captions), len(data.clean.captions), int(data.reserved.sum()), len(data.pool.captions)]

    given = noisy("digits", "shuffled", 0.1, 0, n=1000, n_clean=200, n_reserved=200, n_pool=4000)
    assert sizes(given) == [1000, 200, 200, 597]
    assert sizes(noisy("digits", "shuffled", 0.1, 0)) == [1122, 224, 224, 451]


def test_other_drawings_of_the_same_things_are_in_the_pool_of_emoji() -> None:
    data = small("emoji", "near")
    assert len(data.pool.captions) == 30
    judged = {bytes(image.numpy()) for image in data.images}
    assert not judged & {bytes(image.numpy()) for image in data.pool.images}
    with_all = noisy("emoji", "near", 0.1, 0, n=1000, n_clean=200, n_reserved=200, n_pool=1500)
    assert len(with_all.captions) == 1000
    assert set(with_all.shown) <= set(with_all.pool.labels)


def test_a_scene_says_the_same_from_both_sides() -> None:
    label = "small blue cross left large red square"
    assert scenes.label_of("there is a big red square to the right of a little blue cross") == label
    draw = random.Random(0)
    for caption, shown in zip(small("scenes", "near", 0).captions, small("scenes", "near", 0).shown, strict=True):
        assert scenes.label_of(caption) == shown
        changed, after = scenes.altered(caption, draw)
        assert after != shown
        assert scenes.label_of(changed) == after
        assert scenes.label_of(scenes.SCENES.worded(after, draw)) == after


def test_scenes_at_one_change_are_the_nearest() -> None:
    shown = "small blue cross left large red square"
    far = "large green circle above large red triangle"
    for other in (
        "small blue cross left large red circle",
        "small red cross left large blue square",
        "large red square left small blue cross",
        "small blue cross above large red square",
        "large red square above small blue cross",
    ):
        assert scenes.near([shown, far, other])[shown] == (other,)
    assert scenes.near([shown]) == {shown: ()}


def test_names_of_emoji() -> None:
    labels = emoji.EMOJI.draw(0, emoji.EMOJI.available() or 0).labels
    assert 1300 < len(labels) == len(set(labels))
    assert {"frog face", "heart", "clock face eight oclock", "woman, woman and girl", "female runner"} <= set(labels)
    assert not [label for label in labels if "latin" in label or "fitzpatrick" in label or "regional" in label]
    near = emoji.near(labels)
    assert "clock face eight-thirty" in near["clock face eight oclock"]
    assert not [label for label, others in near.items() if any(emoji.fits(other, label) for other in others)]
    assert emoji.fits("cat", "cat face")
    assert not emoji.fits("dog face", "cat face")


def test_people_are_quoted_and_the_reserved_were_right(folder: Path) -> None:
    data = small("photos", "human_worst", None)
    others = ~data.reserved
    assert 0.3 < float(data.wrong[others].float().mean()) < 0.7
    classes = tuple(photos.FLIPS)
    for caption, label, shown, wrong in zip(data.captions, data.labels, data.shown, data.wrong.tolist(), strict=True):
        assert label in caption
        assert label == (classes[(classes.index(shown) + 3) % 10] if wrong else shown)


def test_photographs_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(photos.VARIABLE, str(tmp_path))
    with pytest.raises(NoPhotos, match=r"ECIF_BENCH_PHOTOS=.* has no images\.tar and no labels\.csv"):
        small("photos", "shuffled")
    monkeypatch.delenv(photos.VARIABLE)
    with pytest.raises(NoPhotos, match="ECIF_BENCH_PHOTOS is not set"):
        small("photos", "shuffled")


@pytest.mark.skipif(not ON_THIS_MACHINE, reason=f"{photos.VARIABLE} is not set: the photographs are not here")
def test_people_err_as_often_as_they_did() -> None:
    shares = {}
    for noise in photos.COLUMNS:
        data = noisy("photos", noise, None, 0)
        assert [len(data.captions), len(data.clean.captions), len(data.pool.captions)] == [1500, 300, 2000]
        shares[noise] = float(data.wrong[~data.reserved].float().mean())
    assert shares == pytest.approx({"human_aggregate": 0.09, "human_one": 0.17, "human_worst": 0.40}, abs=0.04)


@pytest.mark.parametrize(
    ("kind", "noise", "rate", "n"),
    [
        ("digits", "attribute", 0.1, 50),
        ("nothing", "shuffled", 0.1, 50),
        ("digits", "shuffled", None, 50),
        ("digits", "shuffled", 1.5, 50),
        ("digits", "shuffled", 0.1, 20),
    ],
)
def test_what_cannot_be_is_refused(kind: str, noise: str, rate: float | None, n: int) -> None:
    with pytest.raises(ValueError):
        noisy(kind, noise, rate, 0, n=n, n_clean=5, n_reserved=30, n_pool=5)
