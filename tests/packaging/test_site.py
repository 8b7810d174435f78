"""The documentation as a site: built strictly, whole, and without anything from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


class _Fetched(HTMLParser):
    """The addresses that a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link":
            self.addresses.append(given.get("href") or "")
        for name in ("src", "srcset", "poster", "data"):
            if tag != "a" and (address := given.get(name)):
                self.addresses.append(address)


def _fetched(page: str) -> list[str]:
    parser = _Fetched()
    parser.feed(page)
    return parser.addresses


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    outside = [(page, url) for page in pages for url in _fetched(page.read_text()) if "//" in url]
    assert outside == []
    assert _fetched('<script src="https://x.org/a.js"></script><a href="https://x.org">') == ["https://x.org/a.js"]
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", styles) == []
    scripts = "".join(path.read_text() for path in site.rglob("*.js"))
    assert re.findall(r"https?://(?:unpkg|cdn|cdnjs|fonts)[^\"'`]*", scripts) == []


def test_pictures_and_formulas_are_there(site: Path) -> None:
    for page in sorted(set(site.rglob("*.html")) - {site / "404.html"}):  # which may be shown at any depth
        for address in _fetched(page.read_text()):
            if not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), (page, address)
    mathematics = (site / "design.html").read_text()
    assert mathematics.count("<math ") > 100
    assert "arithmatex" not in mathematics


def test_a_step_stands_on_its_page_and_links_lead_to_its_file(site: Path) -> None:
    page = (site / "pipelines" / "prefect.html").read_text()
    assert "create_markdown_artifact" in page
    assert "--8&lt;--" not in page
    assert 'href="../repository/integrations/prefect/flow.py"' in page
    assert (site / "repository" / "integrations" / "prefect" / "flow.py").is_file()


def test_the_readme_is_one_screen_whose_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 75
    links = re.findall(r"\]\(([^)#]+)", readme)
    assert len(links) > 20
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
    for command in ("make demo", "make test", "make serve"):
        assert command in readme


def test_codes_of_the_page_of_troubles_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    codes = {
        code for row in re.findall(r"^\| (`[a-z_]+`.*?) \|", page, re.MULTILINE) for code in re.findall(r"\w+", row)
    }
    assert len(codes) > 30
    rooms = ("service", "store", "worker", "readers")
    code = "".join(path.read_text() for room in rooms for path in sorted((ROOT / room).rglob("*.py")))
    assert [name for name in sorted(codes) if f'"{name}"' not in code] == []
