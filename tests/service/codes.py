"""Every code that an answer, a job, a dataset or a model can carry, read off the code that raises it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("service", "store", "worker", "readers", "encoders")
NOUNS = ("dataset", "model", "job")
_CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RAISED = re.compile(r"(\w+Error|\w+Refused|UploadRefused|problem|problem_answer|_?refused|_refuse|fail)")


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _literals(node: ast.expr | None) -> Iterator[str]:
    """The words that an argument may be: a constant, a choice of two, or one that names a noun."""
    match node:
        case ast.Constant(value=str(word)):
            yield word
        case ast.IfExp(body=body, orelse=other):
            yield from _literals(body)
            yield from _literals(other)
        case ast.JoinedStr(values=values):
            pattern = [value.value if isinstance(value, ast.Constant) else "{}" for value in values]
            yield from ("".join(str(part) for part in pattern).replace("{}", noun) for noun in NOUNS)


def _places(tree: ast.Module) -> dict[str, int]:
    """Which argument of the functions and classes of a file is called `code`."""
    places = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    names = [argument.arg for argument in inner.args.args]
                    if "code" in names:
                        places[node.name] = names.index("code") - 1
        elif isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args]
            if "code" in names and node.name != "__init__":
                places[node.name] = names.index("code") - (names[0] == "self")
    return places


def codes() -> dict[str, str]:
    """Each code, and one place that raises it."""
    trees = {path: ast.parse(path.read_text()) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
    places: dict[str, int] = {}
    for tree in trees.values():
        places |= _places(tree)
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }

    def place(name: str) -> int | None:
        if name in places:
            return places[name]
        return next((found for base in bases.get(name, []) if (found := place(base)) is not None), None)

    raised: dict[str, str] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            words: list[str] = []
            line = getattr(node, "lineno", 0)
            if isinstance(node, ast.Call):
                at = place(_name(node))
                given = node.args[at] if at is not None and len(node.args) > at else None
                named = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
                if at is not None:
                    words += [*_literals(given), *_literals(named)]
                if _name(node) == "__init__":  # of a class that hands its code on to the one that it is made of
                    words += [word for argument in node.args for word in _literals(argument) if "_" in word]
            elif isinstance(node, ast.Dict):
                words += [
                    word
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and key.value == "code"
                    for word in _literals(value)
                ]
            elif isinstance(node, ast.Tuple):  # one of a table of them, whose second member is the code
                words += (
                    [word for word in _literals(node.elts[1]) if "ecif_max_" in ast.unparse(node.elts[0])]
                    if len(node.elts) == 3
                    else []
                )
            for word in words:
                if _CODE.fullmatch(word):
                    raised.setdefault(word, f"{path.relative_to(ROOT)}:{line}")
    return raised
