"""Rules of the house that no linter knows."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("worker", "service", "standalone", "doorbell", "encoders", "ecif", "readers")
STATEMENTS = {"add", "add_all", "delete", "execute", "get", "get_one", "merge", "query", "scalar", "scalars"}


def _statements(path: Path) -> list[str]:
    """Where a file makes a session read or write rows."""
    calls = [
        node.func
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    return [
        f"{path.relative_to(ROOT)}:{call.lineno} {ast.unparse(call)}"
        for call in calls
        if call.attr in STATEMENTS and ast.unparse(call.value).split(".")[-1] == "session"
    ]


def test_rows_are_read_and_written_in_the_store_alone() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    assert [found for path in files for found in _statements(path)] == []


def test_the_rule_sees_what_it_is_for(tmp_path: Path) -> None:
    assert len(_statements(ROOT / "store" / "pairs.py")) > 5
