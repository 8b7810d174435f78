"""What MkDocs does not do by itself (mkdocs.yml): pages link to files beside `docs/`, formulas become MathML as the
site is built, and nothing in it is fetched from elsewhere."""

import posixpath
import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = "repository"
"""The folder of the site that holds the files which lie outside `docs/`."""
_LINK = re.compile(r"(!?\[[^\]\n]*\])\(([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def _path_of(page: str) -> str:
    """Where a page of the site lies in the repository."""
    return page.removeprefix(f"{BESIDE}/") if page.startswith(f"{BESIDE}/") else f"docs/{page}"


def _page_of(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{BESIDE}/{path}"


def _target(link: str, page: str) -> str | None:
    """The file or folder of the repository that a link of a page leads to; None for an address."""
    if ":" in link or link.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(_path_of(page)), link))


def _links(text: str) -> list[str]:
    return [found[1] for part in _CODE.split(text)[::2] for found in _LINK.findall(part)]


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside `docs/`, and what those link to."""
    unread = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while unread:
        page, text = unread.pop()
        for link in _links(text):
            path = _target(link, page)
            if path is None or path.startswith(("docs/", "..")) or not (ROOT / path).is_file():
                continue
            if files.get_file_from_path(_page_of(path)) is None:
                file = File.generated(config, _page_of(path), abs_src_path=str(ROOT / path))
                files.append(file)
                if path.endswith(".md"):
                    unread.append((file.src_uri, file.content_string))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where their files are in the site; a link to a folder of the repository is left as its text."""
    here = page.file.src_uri

    def led(found: re.Match[str]) -> str:
        path = _target(found[2], here)
        if path is None:
            return found[0]
        if (ROOT / path).is_dir():
            if not (ROOT / path / "README.md").is_file() or not path.startswith("docs/"):
                return found[1][1:-1]
            path += "/README.md"
        return f"{found[1]}({posixpath.relpath(_page_of(path), posixpath.dirname(here) or '.')}{found[3] or ''})"

    parts = _CODE.split(markdown)
    return "".join(part if at % 2 else _LINK.sub(led, part) for at, part in enumerate(parts))


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML, which browsers show without a script."""

    def shown(found: re.Match[str]) -> str:
        return convert(unescape(found[2]).strip(), display="block" if found[1] == "div" else "inline")

    return _FORMULA.sub(shown, html)


def on_post_build(config: Any) -> None:
    """The theme would fetch a script for diagrams from elsewhere; there are none."""
    for script in Path(config.site_dir).glob("assets/javascripts/*.js"):
        script.write_text(re.sub(r"https://unpkg\.com/[^\"'`]*", "", script.read_text()))
