"""Rates by label, length, language and script in the summary, and flags that are calibrated within groups."""

import csv
import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.service_fixtures import EmbeddingZip, Upload, Work

Ready = Callable[..., str]
Ask = Callable[..., dict[str, Any]]

LABELS = ("cat", "dog")


def archive(n: int, *, seed: int = 0, wrong: int = 0, columns: tuple[str, ...] = ("label", "LANGUAGE")) -> bytes:
    """n pairs, half of each label; the last `wrong` dogs have captions that belong elsewhere. Captions of dogs are
    long ones in Russian. A tenth of the pairs says no language."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(n, 12)).astype(np.float32)
    text = (image + 0.2 * generator.normal(size=(n, 12))).astype(np.float32)
    dogs = np.arange(1, n, 2)
    moved = dogs[len(dogs) - wrong :]
    text[moved] = text[np.roll(moved, 1)]
    table, packed = io.StringIO(), io.BytesIO()
    rows = csv.DictWriter(table, ("key", "caption", *columns))
    rows.writeheader()
    for place in range(n):
        dog = place % 2 == 1
        caption = f"собака номер {place} на траве" if dog else f"cat {place}"
        values = {"label": LABELS[dog], "LANGUAGE": "" if place % 10 == 0 else ("ru" if dog else "en")}
        rows.writerow({"key": place, "caption": caption} | {name: values[name] for name in columns})
    with zipfile.ZipFile(packed, "w") as out:
        for name, content in (("image.npy", image), ("text.npy", text)):
            array = io.BytesIO()
            np.save(array, content)
            out.writestr(name, array.getvalue())
        out.writestr("metadata.csv", table.getvalue())
    return packed.getvalue()


@pytest.fixture
def ready(upload: Upload, work: Work) -> Ready:
    """Keep an archive as a dataset; its id."""

    def keep(content: bytes) -> str:
        dataset = upload(content)["id"]
        work()
        return dataset

    return keep


@pytest.fixture
def ask(client: TestClient, work: Work) -> Ask:
    """Do a `misalignment` job without a fit; the job as it then is."""

    def do(**spec: Any) -> dict[str, Any]:
        asked = {"task": "misalignment", "fit": None, "methods": ["clip_score"]} | spec
        posted = client.post("/jobs", json=asked)
        assert posted.status_code == 202, posted.text
        work()
        return client.get(f"/jobs/{posted.json()['id']}").json()

    return do


def test_the_summary_says_which_groups_are_wrong(ready: Ready, ask: Ask) -> None:
    job = ask(dataset=ready(archive(400, wrong=80)))
    groups = job["summary"]["groups"]
    assert set(groups) == {"label", "length", "language", "script"}
    cats, dogs = groups["label"]
    assert (cats["group"], cats["pairs"], dogs["group"], dogs["pairs"]) == ("cat", 200, "dog", 200)
    assert cats["estimated_noise_rate"] < 0.1
    assert dogs["estimated_noise_rate"] == pytest.approx(0.4, abs=0.1)
    assert cats["flagged"] + dogs["flagged"] == job["summary"]["counts"]["flagged"]
    assert dogs["flagged_rate"] == dogs["flagged"] / 200
    assert (dogs["calibration_pairs"], dogs["clean_pairs_needed"]) == (None, None)
    assert [row["group"] for row in groups["length"]] == ["2 words", "5 words"]
    assert [(row["group"], row["pairs"]) for row in groups["language"]] == [("ru", 200), ("en", 160), (None, 40)]
    assert [row["group"] for row in groups["script"]] == ["Cyrillic", "Latin"]
    assert groups["script"][0]["flagged"] == dogs["flagged"]


def test_what_does_not_tell_pairs_apart_is_null(ready: Ready, ask: Ask, embedding_zip: EmbeddingZip) -> None:
    for content in (archive(60, columns=()), embedding_zip(60)):
        groups = ask(dataset=ready(content))["summary"]["groups"]
        assert groups == {"label": None, "length": None, "language": None, "script": None}


def test_clean_pairs_calibrate_within_their_group(ready: Ready, ask: Ask, client: TestClient) -> None:
    dataset, clean = ready(archive(600, wrong=100)), ready(archive(400, seed=1))
    job = ask(dataset=dataset, validation={"dataset": clean}, flag={"by": "label", "false_discovery_rate": 0.2})
    summary = job["summary"]
    assert job["spec"]["flag"] == {"false_discovery_rate": 0.2, "confidence": 0.9, "by": "label"}
    assert (summary["flagging"]["by"], summary["flagging"]["method"]) == ("label", "conformal")
    assert summary["flagging"]["calibration_pairs"] == 400
    cats, dogs = summary["groups"]["label"]
    assert (cats["calibration_pairs"], dogs["calibration_pairs"]) == (200, 200)
    assert (cats["pairs"], cats["flagged"]) == (300, 0)
    assert dogs["flagged"] > 50
    assert dogs["clean_pairs_needed"] is None
    (warning,) = [text for text in summary["warnings"] if "groups by label" in text]
    assert warning.startswith("nothing is flagged in 1 of 2 groups by label: 'cat' (200 clean pairs, ")
    flagged = client.get(f"/jobs/{job['id']}/results", params={"flagged": True, "limit": 1000}).json()["items"]
    assert sum(int(row["key"]) % 2 == 1 and int(row["key"]) >= 400 for row in flagged) >= 0.8 * len(flagged)


def test_a_clean_set_with_other_shares_of_the_groups_calibrates_within_them(ready: Ready, ask: Ask) -> None:
    """Clusters by label tell the sets apart; among pairs of one label nothing does."""

    def clustered(n: int, dogs: int, seed: int, wrong: int = 0) -> bytes:
        generator = np.random.default_rng(seed)
        is_dog = np.arange(n) < dogs
        image = generator.normal(size=(n, 12)).astype(np.float32)
        image[:, 0] += np.where(is_dog, 4, -4)
        text = (image + 0.2 * generator.normal(size=(n, 12))).astype(np.float32)
        text[:wrong] = np.roll(text[:wrong], 1, axis=0)
        table, packed = io.StringIO(), io.BytesIO()
        rows = csv.writer(table)
        rows.writerow(("key", "label"))
        rows.writerows((place, LABELS[int(dog)]) for place, dog in enumerate(is_dog))
        with zipfile.ZipFile(packed, "w") as out:
            for name, content in (("image.npy", image), ("text.npy", text)):
                array = io.BytesIO()
                np.save(array, content)
                out.writestr(name, array.getvalue())
            out.writestr("metadata.csv", table.getvalue())
        return packed.getvalue()

    dataset, clean = ready(clustered(600, 500, 0, wrong=100)), ready(clustered(300, 60, 1))
    together, apart = (
        ask(dataset=dataset, validation={"dataset": clean}, flag={"false_discovery_rate": 0.2, **more})["summary"]
        for more in ({}, {"by": "label"})
    )
    assert together["flagging"]["method"] == "estimate"
    assert any("unlike the data" in warning for warning in together["warnings"])
    assert apart["flagging"]["method"] == "conformal"


@pytest.mark.parametrize(
    ("columns", "by", "whose"),
    [((), "label", "dataset"), (("label",), "language", "dataset")],
)
def test_flags_by_what_no_pair_has_are_refused_before_anything_is_computed(
    ready: Ready, ask: Ask, columns: tuple[str, ...], by: str, whose: str
) -> None:
    dataset, clean = ready(archive(60, columns=columns)), ready(archive(60, seed=1))
    job = ask(dataset=dataset, validation={"dataset": clean}, flag={"by": by})
    assert (job["status"], job["phase"]) == ("failed", "plan")
    assert job["error"]["code"] == "no_groups"
    assert job["error"]["message"] == f"flag.by is {by}, and no pair of the {whose} has a {by}"
    other = ask(dataset=clean, validation={"dataset": dataset}, flag={"by": by})
    assert other["error"]["message"] == f"flag.by is {by}, and no pair of the validation dataset has a {by}"


@pytest.mark.parametrize("other", [{}, {"validation": {"fraction": 0.2}}, {"task": "valuation"}])
def test_flags_within_groups_need_clean_pairs(client: TestClient, other: dict[str, Any]) -> None:
    asked = {"task": "misalignment", "dataset": "ds_1", "flag": {"by": "script"}}
    if other.get("task"):
        other = other | {"validation": {"dataset": "ds_2"}}
    answer = client.post("/jobs", json=asked | other)
    assert answer.status_code == 422
    assert "flag.by is for task misalignment with a validation dataset" in answer.text
