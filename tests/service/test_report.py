"""The report: one page for people, which loads nothing, runs nothing and believes nothing that a caption says."""

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.report import content, figures
from tests.service.explaining import explained_job
from tests.service.exporting import ROWS, World
from tests.service_fixtures import Answer, EmbeddingZip, ProblemOf, picture


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.pictures: list[str | None] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        self.pictures += [value for name, value in attrs if tag == "img" and name == "src"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


@pytest.fixture
def page(world: World) -> Callable[..., tuple[Page, Answer]]:
    def read(job: str, **headers: Any) -> tuple[Page, Answer]:
        answer = world.client.get(f"/jobs/{job}/report", headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Page(answer.text), answer

    return read


def test_captions_are_text_and_nothing_is_loaded_or_run(page: Callable[..., tuple[Page, Answer]], job: str) -> None:
    seen, answer = page(job)
    assert not {"script", "iframe", "object", "link", "form", "base"} & set(seen.tags)
    assert not [name for name in seen.attributes if name.startswith("on") or name == "style"]
    assert all(link.startswith("data:image/") for link in seen.links)
    for row in ROWS[:8]:
        assert " ".join(row["caption"].split()) in seen.text
    assert "long long" in seen.text
    assert "end" not in seen.text.split("long long")[1].split("…")[0]
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy


def test_images_are_inside_the_page_once_for_each_pair(page: Callable[..., tuple[Page, Answer]], job: str) -> None:
    seen, _ = page(job)
    assert len(seen.pictures) == 12
    for url in seen.pictures:
        assert base64.b64decode(url.partition("base64,")[2])[:4] == b"\x89PNG"


def test_a_large_image_is_a_thumbnail_in_the_page_and_not_there_without_one(
    world: World, page: Callable[..., tuple[Page, Answer]]
) -> None:
    """One that came before thumbnails were made is shown only where it takes few bytes."""
    rows = [{"file_name": f"{n}.png", "caption": f"noise {n}"} for n in range(5)]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n, row in enumerate(rows):
            archive.writestr(row["file_name"], picture(n, 500 if n == 0 else 32))
        archive.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    dataset = world.upload(out.getvalue())
    job = world.job(dataset=dataset, model={"architecture": "tiny", "pretrained": None})
    seen, _ = page(job)
    (large,) = [base64.b64decode(url.partition(",")[2]) for url in seen.pictures if "jpeg" in url]
    assert len(seen.pictures) == 5
    assert len(large) < 80_000
    assert Image.open(io.BytesIO(large)).size == (256, 256)
    (thumbnails,) = [name for name, _ in world.blobs.list(f"datasets/{dataset}") if name.endswith(".thumbnails")]
    world.blobs.delete(thumbnails)
    seen, _ = page(job)
    assert len(seen.pictures) == 4


def test_flags_are_told_with_what_they_are_worth_and_the_command_for_the_clean_pairs(
    world: World, page: Callable[..., tuple[Page, Answer]], embeddings: str
) -> None:
    seen, answer = page(embeddings)
    flagged = world.client.get(f"/jobs/{embeddings}").json()["summary"]["counts"]["flagged"]
    assert f"flagged {flagged} " in seen.text
    assert "at most 30% are right ones, with a confidence of 90%" in seen.text
    assert "by 100 clean pairs" in seen.text
    assert "keep=clean&format=parquet" in seen.text
    assert "webdataset" not in seen.text  # there are no images
    assert "Bearer" not in seen.text
    assert seen.tags.count("svg") > 4
    assert 'class="bad"' in answer.text
    assert {"plan", "score", "rank"} <= set(seen.text.split())


def grouped_zip(labels: tuple[str, ...], n: int) -> bytes:
    """Embeddings of n pairs, as many of each label."""
    generator = np.random.default_rng(0)
    image = generator.normal(size=(n, 8)).astype(np.float32)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, matrix in (("image.npy", image), ("text.npy", image + generator.normal(size=(n, 8)))):
            array = io.BytesIO()
            np.save(array, matrix.astype(np.float32))
            archive.writestr(name, array.getvalue())
        rows = [{"key": str(place), "label": labels[place % len(labels)]} for place in range(n)]
        archive.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return out.getvalue()


def test_a_pair_says_why_which_caption_fits_better_and_with_which_it_was_exchanged(
    world: World, page: Callable[..., tuple[Page, Answer]], explained: str
) -> None:
    seen, answer = page(explained)
    assert seen.text.count("among all captions and images its own does not stand out") == 11
    assert "unlike each other" not in seen.text  # that spoke against
    assert seen.text.count("seems to have exchanged captions with images/4.png") == 1
    cards = answer.text.split('class="card')
    after = next(card for card in cards if 'class="key mono" title="images/7.png"' in card)
    assert "fits better:</span> &lt;script&gt;alert(1)&lt;/script&gt;" in after
    assert answer.text.count("fits better:") == 11
    plain = world.client.get(f"/jobs/{explained}/report").text
    assert "<script" not in plain


def test_a_report_of_embeddings_says_why_in_its_table(world: World, embedding_zip: EmbeddingZip) -> None:
    job = explained_job(world, dataset=world.upload(embedding_zip(60)))
    text = world.client.get(f"/jobs/{job}/report").text
    assert text.count("does not stand out") == 15  # of the first 12 and the last 4, of which the last has no reasons
    assert "seems to have exchanged captions with" in text


def test_columns_in_words() -> None:
    names = ("lemon, as given", "lemon, turned 0.1", "clip_score", "a_new_one")
    why = [{"column": name, "contribution": None if name == "clip_score" else 1.0} for name in names]
    assert figures.in_words(why) == ["pairs like it say something else", "a new one"]


def test_groups_are_told_the_worst_first_and_a_name_is_text(world: World) -> None:
    """A label is as hostile as a caption."""
    rows: list[dict[str, Any]] = [
        {"group": "<b>calm</b>", "pairs": 300, "flagged": 1, "flagged_rate": 1 / 300, "estimated_noise_rate": 0.01},
        {"group": "bad", "pairs": 200, "flagged": 70, "flagged_rate": 0.35, "estimated_noise_rate": 0.4},
        {"group": None, "pairs": 5, "flagged": 0, "flagged_rate": 0.0, "estimated_noise_rate": None},
    ]
    lengths = [{**row, "group": name} for row, name in zip(rows[:2], ("1 word", "2 to 9 words"), strict=True)]
    many = [{**rows[0], "group": f"g{n}"} for n in range(40)]
    summary = {"groups": {"length": lengths, "label": rows, "language": None, "script": many}}
    label, length, script = content.group_tables(summary)
    assert [row.name for row in label.rows] == ["bad", "<b>calm</b>", "the rest"]
    assert (label.rows[0].wrong, label.rows[0].wrong_share, label.rows[0].flagged_share) == ("40%", 40.0, 35.0)
    assert (label.rows[2].wrong, label.rows[2].wrong_share) == ("–", None)
    assert [row.name for row in length.rows] == ["1 word", "2 to 9 words"]
    assert (len(script.rows), script.left_out) == (15, 25)
    assert content.group_tables({}) == []


def test_how_firm_the_order_is(world: World) -> None:
    kept = {"over": "exchanges", "rank_correlation": 0.934, "top_overlap": {"0.01": 0.5, "0.05": 0.87, "0.1": 0.9}}
    told = content.firmness("misalignment", {"stability": {"suspicion": kept, "influence": None}})
    assert told == (
        "How firm the order is: computed again with other captions exchanged, the first 5% of the pairs keep 87% of "
        "their members (rank correlation of all 0.93)."
    )
    for stability in ({"suspicion": None}, {"suspicion": 0.93}, {}, None):
        assert content.firmness("misalignment", {"stability": stability}) == ""
    dataset = world.upload(grouped_zip(("cat", "dog"), 120))
    job = world.job(dataset=dataset)
    found = world.client.get(f"/jobs/{job}").json()["summary"]["stability"]["suspicion"]
    assert (
        content.firmness("misalignment", {"stability": {"suspicion": found}})
        in Page(world.client.get(f"/jobs/{job}/report").text).text
    )


def test_the_groups_of_a_job_stand_in_its_report(world: World) -> None:
    dataset = world.upload(grouped_zip(("<i>cat", "dog"), 120))
    page = Page(world.client.get(f"/jobs/{world.job(dataset=dataset)}/report").text)
    assert "Where the wrong pairs are" in page.text
    assert "label pairs flagged estimated to be wrong" in page.text
    assert "<i>cat 60" in page.text
    assert "i" not in page.tags


def test_every_flagged_pair_is_marked_in_every_chart(world: World, embeddings: str) -> None:
    summary = world.client.get(f"/jobs/{embeddings}").json()["summary"]
    answer = world.client.get(f"/jobs/{embeddings}/report").text
    drawn = answer.split('aria-label="histogram of ')[1:]
    marked = {part.split('"')[0]: sum(map(int, re.findall(r"(\d+) flagged", part))) for part in drawn}
    assert marked.keys() >= {"suspicion", "influence", "clip_score"}
    assert set(marked.values()) == {summary["counts"]["flagged"]}


def test_a_valuation_tells_what_was_held_out(page: Callable[..., tuple[Page, Answer]], valuation: str) -> None:
    seen, _ = page(valuation)
    assert "What each pair is worth" in seen.text
    assert "12 pairs were held out for validation" in seen.text
    assert "keep=clean" not in seen.text


def test_a_traceback_shows_the_worst_queries_with_their_pairs(
    world: World, page: Callable[..., tuple[Page, Answer]], traceback: str
) -> None:
    seen, answer = page(traceback)
    queries = world.client.get(f"/jobs/{traceback}").json()["summary"]["queries"]
    worst = sorted(queries, key=lambda query: -query["loss"])[:12]
    sections = answer.text.split('<section class="query">')[1:]
    for section, query in zip(sections, worst, strict=True):
        mono = re.findall(r'mono"[^>]*>([^<]*)<', section)
        rows = world.results(traceback, query=query["key"])
        assert mono == [query["key"], *(row["key"] for row in rows)]
    assert "88 more queries are in the export" in seen.text


def test_a_removal_tells_what_it_did_to_the_loss(
    world: World, page: Callable[..., tuple[Page, Answer]], embeddings: str
) -> None:
    spec = world.client.get(f"/jobs/{embeddings}").json()["spec"]
    job = world.job(
        task="removal",
        dataset=spec["dataset"],
        validation=spec["validation"],
        remove={"keys": ["1", "2"]},
        verify=True,
        objective={"batch_size": 32, "temperature": 0.5, "l2": 1.0},  # soon at rest again
    )
    seen, _ = page(job)
    loss = world.client.get(f"/jobs/{job}").json()["summary"]["removal"]["validation_loss"]
    assert "removed 2 " in seen.text
    assert f"before {figures.number(loss['before'])} " in seen.text
    assert f"of the edited model {figures.number(loss['edited'])} " in seen.text
    assert "of a real refit without them" in seen.text
    assert f"/jobs/{job}/checkpoint" in seen.text


def test_a_job_that_has_not_succeeded_has_no_report(world: World, embeddings: str, problem_of: ProblemOf) -> None:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    job = world.client.post("/jobs", json={"task": "misalignment", "dataset": dataset}).json()["id"]
    assert problem_of(world.client.get(f"/jobs/{job}/report"))["code"] == "no_results"
    world.client.delete(f"/jobs/{job}")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.5, "−0.5"), (1234.5, "1,234"), (-1.23e-5, "−1.2e−5"), (3.2e7, "3.2e7"), (None, "–")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.05, "5%"), (0.123, "12%"), (0.005, "0.5%"), (1.01, "101%"), (0, "0%")])
def test_shares_are_short(value: float, text: str) -> None:
    assert figures.share(value) == text


def test_a_score_that_is_the_same_everywhere_is_not_drawn() -> None:
    described = {"histogram": {"edges": [1.0, 1.0], "counts": [5]}, "quantiles": {"0.5": 1.0}}
    assert figures.chart("x", "", described, None) is None
