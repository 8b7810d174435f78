"""Rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ROOMS = (
    "worker",
    "service",
    "standalone",
    "doorbell",
    "encoders",
    "ecif",
    "readers",
    "store",
    "migrations",
    "clients",
)
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

STATEMENTS = {"add", "add_all", "delete", "execute", "get", "get_one", "merge", "query", "scalar", "scalars"}
RIDDLES = {"told", "asked", "found", "kept", "lying", "keeping", "even_deleted", "take_up", "courier"}
MOST_LINES = 400
LONG_FILES = {
    "store/shards.py": "claims, leases and fences: one protocol, whose statements are read together",
    "store/tables.py": "every table, as migrations compare them",
    "worker/outputs.py": "the types between all phases, which are compared with each other",
}


def _statements(path: Path, code: str) -> list[str]:
    """Where a file makes a session read or write rows."""
    calls = [
        node.func
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    return [
        f"{path}:{call.lineno} {ast.unparse(call)}"
        for call in calls
        if call.attr in STATEMENTS and ast.unparse(call.value).split(".")[-1] == "session"
    ]


def _riddles(path: Path, code: str) -> list[str]:
    """Names that a file gives to functions, classes, arguments and variables and that do not say what they name."""
    given = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                given.append((node.lineno, name))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                given.append((node.lineno, name))
    return [f"{path}:{line} {name}" for line, name in given if name.strip("_").lower() in RIDDLES]


def _elsewhere(path: Path, code: str) -> list[str]:
    """Pages that a file refers to and that are not in the repository."""
    pages = re.findall(r"[\w./-]+\.md\b", code)
    return [
        f"{path} {page}"
        for page in pages
        if not any((folder / page).is_file() for folder in (ROOT, ROOT / "docs", (ROOT / path).parent))
    ]


def _each(rule: object) -> list[str]:
    assert callable(rule)
    return [line for path in FILES for line in rule(path.relative_to(ROOT), path.read_text())]


def test_all_rooms_are_seen() -> None:
    assert len(FILES) > 200
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ROOMS)


def test_rows_are_read_and_written_in_the_store_alone() -> None:
    assert [line for line in _each(_statements) if not line.startswith(("store/", "migrations/"))] == []
    assert len([line for line in _each(_statements) if line.startswith("store/")]) > 50


def test_a_name_says_what_it_names() -> None:
    assert _each(_riddles) == []
    code = "import x as told\ndef take_up(asked): found, fine = (kept := 1), asked"
    assert len(_riddles(Path("x"), code)) == 5


def test_what_is_referred_to_is_in_the_repository() -> None:
    assert _each(_elsewhere) == []
    assert _elsewhere(Path("x"), "see design/other.md and docs/design.md") == ["x design/other.md"]


def test_a_file_is_read_in_one_go_or_says_why_not() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name for name, count in lines.items() if count > MOST_LINES} == set(LONG_FILES)


def test_hooks_are_commands_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        command, target = hook["entry"].split()
        assert command == "make"
        assert target in targets
