"""Every section at its smallest size: it runs, and its figures exist and are finite. What they are is noise."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import page
from benchmarks.__main__ import main
from benchmarks.goals import goals
from benchmarks.plots import PLOTS
from benchmarks.sections import HOME, SECTIONS, Section, read_data

pytestmark = pytest.mark.timeout(900)  # all sections are measured in the first test's set-up


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    assert main(["--toy", "--to", str(folder)]) == 0
    return folder


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_section_gives_finite_figures(measured: Path, section: Section) -> None:
    content = json.loads((measured / "data" / f"{section.name}.json").read_text())
    figures = numbers(content["results"])
    assert figures
    assert all(math.isfinite(number) for number in figures)
    assert {"date", "cores", "python", "torch"} <= set(content["machine"])


def test_the_page_and_its_pictures_are_made_from_them(measured: Path) -> None:
    figures = read_data(measured)
    text = (measured / "README.md").read_text()
    assert list(figures) == [section.name for section in SECTIONS] == list(page.PARTS)
    assert all(f"## {section.title}" in text for section in SECTIONS)
    assert all(row.what in text for row in goals(figures))
    for name in PLOTS:
        assert f"(plots/{name}.png)" in text
        with Image.open(measured / "plots" / f"{name}.png") as picture:
            assert min(picture.size) > 200


def test_the_page_in_the_repository_is_what_its_data_say(tmp_path: Path) -> None:
    written = page.write(tmp_path, read_data(HOME))
    assert written.read_text() == (HOME / "README.md").read_text()


@pytest.mark.parametrize("arguments", [["nothing_like_this"], ["--toy"]])
def test_a_wrong_call_is_refused_before_anything_is_measured(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error:" in capsys.readouterr().err
