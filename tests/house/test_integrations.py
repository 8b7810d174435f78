"""Steps for pipelines are code, have a page that shows them, and stand in the list that `make integrations` runs."""

import re

import pytest

from integrations.__main__ import main
from integrations.frameworks import FRAMEWORKS, HERE, Framework

ROOT = HERE.parent
PAGES = ROOT / "docs" / "pipelines"


def test_every_folder_is_run() -> None:
    folders = {path.parent.name for path in HERE.glob("*/drive.py")}
    assert folders == {framework.name for framework in FRAMEWORKS}
    assert {path.stem for path in PAGES.glob("*.md")} == {*folders, "README"}


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.name)
def test_a_step_is_code_that_its_page_includes(framework: Framework) -> None:
    for path in framework.folder.glob("*.py"):
        compile(path.read_text(), path, "exec", dont_inherit=True)
    assert all("==" in pin for pin in framework.requirements)
    page = (PAGES / f"{framework.name}.md").read_text()
    names = [(framework.folder / step).relative_to(ROOT) for step in framework.steps]
    assert sum(len((ROOT / name).read_text().splitlines()) for name in names) <= 110
    assert re.findall(r"^```\w+\n(.*)\n```$", page, re.MULTILINE) == [f'--8<-- "{name}"' for name in names]
    assert [name for name in names if f"[{name}](../../{name})" not in page] == []
    (row,) = [line for line in (PAGES / "README.md").read_text().splitlines() if f"({framework.name}.md)" in line]
    assert row.split("|")[-2].strip() == framework.requirements[0].partition("==")[2]


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["airflaw"]) == 2
    assert "'airflaw' is none of airflow, prefect" in capsys.readouterr().err
