"""The pages that explain: lines shown from the source stand there, the table of methods is that of the code."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

from trt_cam.explainers import get_explainer, list_explainers
from trt_cam.listing import options

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(ROOT / "examples"))
import method_table  # noqa: E402

EXCERPT = re.compile(r"^In `(trt_cam/[\w/]+\.py)`, `([\w.]+)`:\n\n```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BUILT_IN = [name for name in list_explainers() if get_explainer(name).__module__.startswith("trt_cam.")]
LONG = {"is-cam", "ss-cam", "rise"}  # a thousand forwards and more


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def source_of(file: str, name: str) -> str:
    """Source of a function, or of a class's method, in a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(one for one in vars(node)["body"] if getattr(one, "name", None) == part)
    found = ast.get_source_segment(text, node)
    assert found is not None
    return found


def stands_in(lines: str, source: str) -> bool:
    """Whether lines stand in a source as they are, but for their indentation; a line "..." leaves some out."""
    place, flat = 0, [line.rstrip() for line in source.splitlines()]
    for part in lines.rstrip("\n").split("\n...\n"):
        wanted = part.splitlines()
        starts = range(place, len(flat) - len(wanted) + 1)
        dedented = (textwrap.dedent("\n".join(flat[at : at + len(wanted)])) for at in starts)
        at = next((at for at, shown in zip(starts, dedented, strict=True) if shown == textwrap.dedent(part)), None)
        if at is None:
            return False
        place = at + len(wanted)
    return True


@pytest.mark.parametrize("name", ["method.md", "observing.md"])
def test_lines_shown_are_the_sources(name: str) -> None:
    found = EXCERPT.findall(page(name))
    assert len(found) == page(name).count("```py\n") >= (15 if name == "method.md" else 3)
    for file, function, lines in found:
        assert stands_in(lines, source_of(file, function)), f"not in {function} of {file}:\n{lines}"


def test_a_line_that_was_changed_is_missed() -> None:
    source = "def f(x):\n    y = x + 1\n    if y:\n        z = 2 * y\n    return z\n"
    assert stands_in("y = x + 1\nif y:\n    z = 2 * y\n", source) and stands_in("y = x + 1\n...\nreturn z\n", source)
    assert not stands_in("y = x + 2\n", source) and not stands_in("return z\n...\ny = x + 1\n", source)
    assert not stands_in("y = x + 1\nz = 2 * y\n", source)


# ---------------------------------------------------------------------------------------------------- docs/methods.md


def rows() -> dict[str, list[str]]:
    """Cells of the table, by method."""
    lines = page("methods.md").partition(f"| {' | '.join(method_table.HEAD)} |")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row for row in cells}


def test_every_method_has_its_row_and_cost() -> None:
    table = rows()
    assert list(table) == BUILT_IN
    for name, row in table.items():
        assert len(row) == len(method_table.HEAD)
        kind = get_explainer(name)
        assert row[1] == ", ".join(sorted(kind.requires))
        assert row[2] == ("yes" if kind.class_specific else "no")
        assert re.fullmatch(r"\d+\.\d\d|\d\d|\([\d,]+\)", row[6]), f"cost of {name}: {row[6]!r}"
        assert re.fullmatch(r"(< )?\d+", row[7]) or row[6].startswith("(")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in BUILT_IN]
)
def test_passes_are_counted(name: str) -> None:
    said = rows()[name]
    counted = [
        cell.strip() for cell in method_table.row(name, method_table.passes(name), None, "").strip("|").split("|")
    ]
    assert counted[:6] == said[:6]
    if said[6].startswith("("):
        assert counted[6] == said[6]


def sections() -> dict[str, tuple[str, str]]:
    """Text of every method's section, and the words of its group before the first of them."""
    found = {}
    for group in re.split(r"^## ", page("methods.md"), flags=re.MULTILINE)[1:]:
        before, *parts = re.split(r"^### ", group, flags=re.MULTILINE)
        for part in parts:
            name = re.match(r"[^\n]+\n\n`([\w+-]+)`\. ", part)
            assert name, f"a section must begin with its method's name: {part[:80]!r}"
            assert name[1] not in found
            found[name[1]] = (part, before)
    return found


def test_every_method_has_its_section_with_settings_and_paper() -> None:
    found = sections()
    assert set(found) == set(rows())
    for name, (text, before) in found.items():
        kind = get_explainer(name)
        for setting, default in options(kind).items():
            shown = f"`{setting}={default!r}`".replace("'", '"')
            assert shown in text or shown in before, f"{name} does not say {shown}"
        said = set(re.findall(r"`(\w+)=", text)) - {"target_layers", "features"}
        assert said <= set(options(kind)), f"{name} has no {said - set(options(kind))}"
        for paper in re.findall(r"(?:arXiv|doi):[\w./]*\w", inspect.getdoc(kind) or ""):
            assert f"[{paper}](" in text, f"{name} does not link {paper}"
    assert sum("$$" in text for text, _ in found.values()) >= 20


# ------------------------------------------------------------------------------------------------ docs/differences.md


def test_every_proof_is_a_test() -> None:
    proofs = re.findall(r"`(test_\w+)\.py::(test_\w+)`", page("differences.md"))
    assert len(proofs) >= 20
    for file, test in proofs:
        source = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}.py has no {test}"
