"""The layers of the package, read from its imports, and the house limits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "trt_cam"
FILES = sorted(ROOT.rglob("*.py"))

# A file imports only from a smaller number or its own folder.
LAYERS = {
    "__init__": 0,
    "errors": 0,
    "ops": 1,
    "data": 1,
    "assets": 1,
    "targets": 1,
    "refine": 1.5,
    "backbone": 2,
    "observe": 3,
    "models": 4,
    "metrics": 4,
    "explainers": 5,
    "results": 6,
    "pipeline": 6.1,
    "localization": 6.2,
    "runs": 6.3,
    "evaluation": 7,
    "pseudolabels": 7.1,
    "report": 8,
    "training": 8.2,
    "export": 8.3,
    "testing": 9,
    "listing": 8.5,
    "cli": 9,
    "__main__": 9.1,
}
DOORS = {("models.trt", "localization"), ("results", "report")}  # upward, inside a function: an object shows itself
ONLY_IN = {"timm": {"backbone", "models", "training"}, "matplotlib": {"report"}}
MAX_FILE, MAX_FUNCTION = 300, 40


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(tree: ast.AST, *, inside_functions: bool = True) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue  # for type checkers only: nothing is imported
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, inside_functions=inside_functions)


def parts_of(imported: str) -> str:
    """The top-level part of the package that an import means; "" for another package."""
    words = imported.split(".")
    if words[0] != "trt_cam":
        return ""
    return words[1] if len(words) > 1 and words[1] in LAYERS else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = name_of(path).split(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_the_top = {parts_of(name) for name in imports(tree, inside_functions=False)}
    for target in {parts_of(name) for name in imports(tree)} - {"", own}:
        door = (name_of(path), target) in DOORS and target not in at_the_top
        assert LAYERS[target] < LAYERS[own] or door, f"{name_of(path)} imports {target}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_packages_stay_where_they_belong(path: Path) -> None:
    own = name_of(path).split(".")[0]
    for imported in imports(ast.parse(path.read_text(encoding="utf-8"))):
        package = imported.split(".")[0]
        assert own in ONLY_IN.get(package, {own}), f"{name_of(path)} imports {package}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    printed = [node.lineno for node in calls if getattr(node.func, "id", "") == "print"]
    assert name_of(path) == "cli.output" or not printed, f"{name_of(path)} prints in lines {printed}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_observe_hooks_and_only_it_and_training_differentiate(path: Path) -> None:
    names = {
        node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
    }
    found = names & {
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "backward",
        "grad",
    }
    assert name_of(path).startswith(("observe", "testing", "training")) or not found, f"{name_of(path)} uses {found}"


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function less its docstring."""
    length = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        length -= (first.end_lineno or 0) - first.lineno + 1
    return length


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {node.name: body_length(node) for node in functions if body_length(node) > MAX_FUNCTION}
    assert not long, f"{name_of(path)}: functions over {MAX_FUNCTION} lines: {long}"
    assert len(text.splitlines()) <= MAX_FILE, f"{name_of(path)} has {len(text.splitlines())} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_say_what_they_do(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    overloads = [node for node in defined if any(getattr(mark, "id", "") == "overload" for mark in node.decorator_list)]
    public = [node for node in defined if not node.name.startswith("_") and node not in overloads]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert not silent, f"{name_of(path)}: no docstring in {silent}"


def test_a_wrong_import_would_be_seen() -> None:
    tree = ast.parse(
        "def f():\n    from trt_cam.localization import localize\nimport timm.data\nfrom trt_cam import errors"
    )
    assert set(imports(tree)) == {"trt_cam.localization.localize", "timm.data", "trt_cam.errors"}
    assert set(imports(tree, inside_functions=False)) == {"timm.data", "trt_cam.errors"}
    assert [parts_of(name) for name in ("trt_cam.localization.localize", "timm.data", "trt_cam.__version__")] == [
        "localization",
        "",
        "__init__",
    ]
