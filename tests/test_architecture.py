"""The layers of the package, read from its imports, and the house limits."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from layers import (
    DOORS,
    FILES,
    LAYERS,
    PICTURE,
    ROOT,
    arrows,
    direct,
    imports,
    name_of,
    parts_of,
    picture,
    reached,
    text_of,
    tree_of,
)

PAGE = ROOT.parent / "docs" / "architecture.md"
ONLY_IN = {"timm": {"backbone", "models", "training"}, "matplotlib": {"report"}}
MAX_FILE, MAX_FUNCTION = 300, 40


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = name_of(path).split(".")[0]
    tree = tree_of(path)
    at_the_top = {parts_of(name) for name in imports(tree, inside_functions=False)}
    for target in {parts_of(name) for name in imports(tree)} - {"", own}:
        door = (name_of(path), target) in DOORS and target not in at_the_top
        assert LAYERS[target] < LAYERS[own] or door, f"{name_of(path)} imports {target}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_packages_stay_where_they_belong(path: Path) -> None:
    own = name_of(path).split(".")[0]
    for imported in imports(tree_of(path)):
        package = imported.split(".")[0]
        assert own in ONLY_IN.get(package, {own}), f"{name_of(path)} imports {package}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    printed = [node.lineno for node in calls if getattr(node.func, "id", "") == "print"]
    assert name_of(path) == "cli.output" or not printed, f"{name_of(path)} prints in lines {printed}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_observe_hooks_and_only_it_and_training_differentiate(path: Path) -> None:
    names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
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
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {node.name: body_length(node) for node in functions if body_length(node) > MAX_FUNCTION}
    assert not long, f"{name_of(path)}: functions over {MAX_FUNCTION} lines: {long}"
    length = len(text_of(path).splitlines())
    assert length <= MAX_FILE, f"{name_of(path)} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_say_what_they_do(path: Path) -> None:
    tree = tree_of(path)
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


def test_the_picture_is_of_these_imports() -> None:
    drawn = PICTURE.read_text(encoding="utf-8")
    assert drawn == picture(), "the imports are not those of the picture: python tests/layers.py draws it again"
    assert set(re.findall(r">(\w+)</text>", drawn)) == set(arrows())


def test_what_is_not_drawn_follows_from_what_is() -> None:
    for part, aims in arrows().items():
        through = set(direct(part)).union(*(reached(aim) for aim in direct(part)))
        assert aims <= through and part not in through, part


def test_the_page_names_every_part_and_what_it_imports() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\|([^|]*)\|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = {part: set(re.findall(r"`(\w+)`", aims)) for part, aims in rows}
    assert named == {part: set(direct(part)) for part in arrows()}
    assert [part for part, _ in rows] == sorted(named, key=lambda part: LAYERS[part]), "from the bottom to the top"


def test_the_page_names_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w./]+)`", PAGE.read_text(encoding="utf-8")):
        assert (ROOT.parent / name).exists(), name
