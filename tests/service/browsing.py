"""A real Chromium, where this machine has one, and what makes sure of a page: axe-core, and pictures of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("ECIF_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
NEEDED = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (`apt install chromium`), and finds none")
_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
DESKTOP = {"width": 1280, "height": 900}
TELEPHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; nothing of it asks anybody outside."""
    options = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, viewport: dict[str, int] = DESKTOP, *, dark: bool = False, is_missing: bool = False
) -> Iterator[Page]:
    """A page of a new visitor. It must leave no word in the console, but for that of one that is missing, and
    ask no other host for anything."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(base_url=url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    words: list[str] = []
    elsewhere: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: words.append(message.text))
    page.on("pageerror", lambda error: words.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(url) else elsewhere.append(request.url))
    try:
        yield page
        assert len(words) == is_missing, words
        assert [address for address in elsewhere if not address.startswith(("data:", "blob:"))] == []
    finally:
        context.close()


def violations(page: Page) -> list[tuple[str, str, list[Any]]]:
    """What axe-core finds wrong with a page: the rule, what it says, and where."""
    page.evaluate(_AXE)  # by the browser's own protocol: the policy of the page lets no other script in
    answer = page.evaluate("async () => await axe.run(document, {resultTypes: ['violations']})")
    return [
        (found["id"], found["help"], [node["html"][:120] for node in found["nodes"]][:3])
        for found in answer["violations"]
    ]


def overflows(page: Page) -> bool:
    """Whether a page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def picture(page: Page, name: str) -> None:
    """A picture for the docs, where `ECIF_SCREENSHOTS` names their folder (`make screenshots`)."""
    folder = os.environ.get("ECIF_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
