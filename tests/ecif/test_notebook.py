"""The notebook of `examples/` runs from its first cell to its last, and says what it promises."""

import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


def test_the_notebook_runs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)  # what is kept is what was written
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)  # noqa: S102
    right = int((names["flagged"] & ~names["wrong"]).sum())
    assert int(names["flagged"].sum()) > 0
    assert right <= 0.1 * int(names["flagged"].sum())
    assert names["areas"]["suspicion"] > max(0.9, names["areas"]["influence"])
