"""The pages for people, in a real browser: what they show, that they are usable by keyboard, and that axe finds
nothing."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from standalone.demo import digits
from tests.service import browsing
from tests.service.browsing import opened, overflows, picture, violations
from tests.service.exporting import World
from tests.service.serving import in_a_thread
from tests.service_fixtures import EmbeddingZip

pytestmark = browsing.NEEDED


_PICTURED = {"desktop": ("grid", "pair", "map", "sample"), "telephone": ("grid",)}
"""What docs/explorer.md shows."""


@pytest.fixture(scope="module")
def seen(world: World) -> str:
    """A job on 110 scanned digits, every fifth with a wrong caption, held against 80 clean ones."""
    plan = digits.Plan()
    drawn = digits.load(plan)
    clean = world.upload(digits.archive(drawn.validation[:80], plan), "clean-digits.zip")
    dataset = world.upload(digits.archive(drawn.training[:110], plan), "digits.zip")
    return world.job(
        dataset=dataset,
        validation={"dataset": clean},
        model={"architecture": "tiny", "pretrained": None},
        objective={"batch_size": 55},
        name="Scanned digits",
    )


@pytest.fixture(scope="module")
def address(world: World, seen: str) -> Iterator[str]:
    with in_a_thread(world.settings) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


def ranks(page: Page) -> list[int]:
    """Of the pairs in the grid, in order."""
    return [int(text.strip("#\n ")) for text in page.locator(".cards .head span:first-child").all_inner_texts()]


def test_from_the_list_of_jobs_to_a_pair(page: Page, world: World, seen: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="Scanned digits").click()
    assert page.url.endswith(f"/jobs/{seen}/explore")
    assert ranks(page) == list(range(1, 49))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].slice(0, 8).every((image) => image.naturalWidth > 0)")
    page.get_by_role("link", name="Next page").click()
    assert ranks(page) == list(range(49, 97))
    page.locator(".cards a.open").nth(2).click()
    assert page.url.endswith(f"/jobs/{seen}/explore/51")
    (row,) = [row for row in world.results(seen) if row["rank"] == 51]
    assert row["caption"] in page.inner_text("article")
    assert page.get_by_role("heading", name="Why it looks suspicious").is_visible()


def test_sorted_searched_and_narrowed_by_a_click_on_the_histogram(page: Page, world: World, seen: str) -> None:
    page.goto(f"/jobs/{seen}/explore")
    page.get_by_label("Sort by").select_option("clip_score")
    page.get_by_label("Caption holds").fill("seven")
    page.get_by_role("button", name="Show").click()
    wanted = world.results(seen, sort="clip_score", caption="seven")
    assert ranks(page) == [row["rank"] for row in wanted][:48]
    bar = page.locator(".histogram a").nth(20)
    bar.click()
    least, most = (float(re.search(rf"{side}_clip_score=([^&]+)", page.url)[1]) for side in ("min", "max"))
    wanted = world.results(seen, sort="clip_score", caption="seven", min_clip_score=least, max_clip_score=most)
    assert ranks(page) == [row["rank"] for row in wanted]
    page.get_by_role("link", name="caption holds").click()
    assert "caption=" not in page.url
    assert "min_clip_score" in page.url


def test_marks_by_keyboard_alone(page: Page, world: World, seen: str) -> None:
    page.goto(f"/jobs/{seen}/explore")
    page.locator(".cards a.open").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.get_by_text("pair 2: drop").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.get_by_label("What the image shows").fill("what it really is")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("pair 3: relabel").wait_for()
    page.keyboard.press("k")  # the focus is back where it was
    page.get_by_text("pair 3: keep").wait_for()
    page.keyboard.press("k")
    page.get_by_text("pair 3: no mark").wait_for()
    keys = {row["rank"]: row["key"] for row in world.results(seen)}
    said = {item["key"]: item["mark"] for item in world.client.get(f"/jobs/{seen}/marks").json()["items"]}
    assert said == {keys[2]: "drop"}
    page.reload()
    assert (
        page.get_by_label("mark pair 2", exact=True).get_by_role("button", name="drop").get_attribute("aria-pressed")
        == "true"
    )


def test_an_upload_becomes_a_job_whose_progress_is_followed(
    page: Page, world: World, embedding_zip: EmbeddingZip
) -> None:
    page.goto("/new")
    page.get_by_label("Or a file").first.set_input_files(
        {"name": "pairs.zip", "mimeType": "application/zip", "buffer": embedding_zip(40)}
    )
    page.get_by_label("Name of the job").fill("From the page")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("queued: ingest").wait_for()
    job = page.url.split("/")[-2]
    sent = world.client.get(f"/jobs/{job}").json()
    assert (sent["name"], sent["spec"]["flag"]["false_discovery_rate"]) == ("From the page", 0.05)
    world.work()
    page.get_by_role("heading", name="40 pairs").wait_for()  # the page loads anew when the job has ended
    assert ranks(page) == list(range(1, 41))


def test_the_sample_shows_no_score_and_its_marks_are_its_own(page: Page, world: World, seen: str) -> None:
    page.goto(f"/jobs/{seen}/explore/sample")
    assert page.locator(".scores").count() == 0
    page.locator(".cards .open").first.focus()
    page.keyboard.press("k")
    page.get_by_text("sample 1: keep").wait_for()
    (offered, *_) = world.client.get(f"/jobs/{seen}/sample").json()["items"]
    assert offered["mark"] == "keep"
    page.reload()
    assert "1 judged without a gap" in page.inner_text("main")


def test_a_line_round_points_of_the_map_shows_their_pairs(page: Page, world: World, seen: str) -> None:
    page.goto(f"/jobs/{seen}/explore/map")
    page.get_by_text("110 pairs; the plane holds").wait_for()
    box = page.locator("#map").bounding_box()
    corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98)]
    for n, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if n == 0:
            page.mouse.down()
    page.mouse.up()
    page.get_by_text("pairs chosen").wait_for()
    drawn = world.client.get(f"/jobs/{seen}/map").json()
    left = {rank for rank, x in zip(drawn["rank"], drawn["x"], strict=True) if x < -0.02}
    page.get_by_role("link", name="Show them").click()
    shown = {int(rank) for rank in page.url.partition("ranks=")[2].replace("%2C", ",").split(",")}
    assert left <= shown
    assert len(shown) < 110
    page.go_back()
    page.get_by_text("110 pairs; the plane holds").wait_for()
    page.locator("#map").focus()
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    page.get_by_text("pairs chosen").wait_for()


def test_axe_is_asked(page: Page) -> None:
    page.goto("/sign-in")
    page.evaluate("document.querySelector('h1').style.color = '#eee'")
    assert [rule for rule, *_ in violations(page)] == ["color-contrast"]


@pytest.mark.parametrize(("device", "dark"), [("desktop", False), ("telephone", True)])
def test_axe_finds_nothing_and_no_page_is_wider_than_its_window(
    browser: Browser, address: str, world: World, seen: str, device: str, dark: bool
) -> None:
    dataset = world.client.get(f"/jobs/{seen}").json()["spec"]["dataset"]
    pages = {
        "overview": "/",
        "grid": f"/jobs/{seen}/explore",
        "pair": f"/jobs/{seen}/explore/1",
        "map": f"/jobs/{seen}/explore/map",
        "sample": f"/jobs/{seen}/explore/sample",
        "report": f"/jobs/{seen}/report",
        "dataset": f"/datasets/{dataset}/explore",
        "new": "/new",
        "missing": "/jobs/job_0/explore",
        "sign-in": "/sign-in",
    }
    viewport = browsing.DESKTOP if device == "desktop" else browsing.TELEPHONE
    for name, path in pages.items():
        with opened(browser, address, viewport, dark=dark, is_missing=name == "missing") as page:
            page.goto(path, wait_until="networkidle")
            assert violations(page) == [], name
            assert not overflows(page), name
            if name in _PICTURED[device]:
                picture(page, f"{name}-{device}")
