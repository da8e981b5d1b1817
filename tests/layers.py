"""The layers of the package, what each part really imports, and a drawing of both.

``python tests/layers.py`` writes docs/pictures/layers.svg again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent / "trt_cam"
FILES = sorted(ROOT.rglob("*.py"))
PICTURE = ROOT.parent / "docs" / "pictures" / "layers.svg"

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
    "listing": 8.5,
    "testing": 9,
    "cli": 9,
    "__main__": 9.1,
}
DOORS = {("models.trt", "localization"), ("results", "report")}  # upward, inside a function: an object shows itself


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


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


@cache
def arrows() -> dict[str, set[str]]:
    """Which parts each part imports, itself, doors and the package's own version aside."""
    found: dict[str, set[str]] = {part: set() for part in LAYERS if part not in ("__init__", "assets")}
    for path in FILES:
        own = name_of(path).split(".")[0]
        if own in found:
            aims = {parts_of(name) for name in imports(tree_of(path))}
            found[own] |= {aim for aim in aims - {"", "__init__", own} if (name_of(path), aim) not in DOORS}
    return found


def reached(part: str) -> set[str]:
    """All that a part imports, itself or through others."""
    return arrows()[part].union(*(reached(aim) for aim in arrows()[part]))


def direct(part: str) -> list[str]:
    """Imports of a part that do not follow from its other ones."""
    aims = arrows()[part]
    return sorted(aim for aim in aims if not any(aim in reached(other) for other in aims))


def row_of(part: str) -> int:
    return max((row_of(aim) + 1 for aim in arrows()[part]), default=0)


# ------------------------------------------------------------------------------------------------------ the drawing

WIDTH, HEIGHT, ACROSS, DOWN = 112, 32, 144, 68
COLUMNS = {
    "errors": 2.3,
    "targets": 0.0,
    "backbone": 1.1,
    "ops": 2.3,
    "data": 3.5,
    "runs": 5.4,
    "observe": 1.2,
    "refine": 2.2,
    "results": 3.4,
    "metrics": 4.4,
    "models": 1.6,
    "explainers": 1.6,
    "testing": 0.0,
    "listing": 0.9,
    "pipeline": 2.2,
    "localization": 2.2,
    "export": 4.6,
    "evaluation": 2.6,
    "pseudolabels": 1.4,
    "training": 2.65,
    "report": 4.1,
    "cli": 2.6,
    "__main__": 2.6,
}


def place(part: str) -> tuple[float, float]:
    """Centre of a part's box; one that nobody gave a column stands at the right."""
    rows = max(map(row_of, arrows()))
    return 70 + ACROSS * COLUMNS.get(part, 6.5), 30 + DOWN * (rows - row_of(part))


def arrow(part: str, aim: str) -> str:
    (x0, y0), (x1, y1) = place(part), place(aim)
    x0 += max(-WIDTH / 3, min(WIDTH / 3, (x1 - x0) / 4))
    x1 += max(-WIDTH / 3, min(WIDTH / 3, (x0 - x1) / 4))
    ends = f'x1="{x0:g}" y1="{y0 + HEIGHT / 2:g}" x2="{x1:g}" y2="{y1 - HEIGHT / 2 - 1:g}"'
    return f"<line {ends}><title>{part} imports {aim}</title></line>"


def box(part: str) -> str:
    x, y = place(part)
    corner = f'x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"'
    return f'<rect {corner}/><text x="{x:g}" y="{y + 5:g}">{part}</text>'


def picture() -> str:
    """The layers as SVG: every arrow is an import; what follows from two others is left out."""
    parts = sorted(arrows(), key=lambda part: (-row_of(part), part))
    x, y = max(place(part)[0] for part in parts) + 70, max(place(part)[1] for part in parts) + 30
    lines = [arrow(part, aim) for part in parts for aim in direct(part)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x:g} {y:g}" width="{x:g}" role="img">',
            "<title>The parts of trt_cam and what they import</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>',
            f'<rect width="{x:g}" height="{y:g}" fill="#fff"/>',
            '<g fill="none" stroke="#667" stroke-width="1.1" marker-end="url(#tip)">',
            *lines,
            "</g>",
            '<g fill="#eef3fa" stroke="#5b7aa8" font-family="sans-serif" font-size="14" text-anchor="middle">',
            *map(box, parts),
            "</g>",
            "</svg>",
            "",
        ]
    ).replace("<text ", '<text fill="#123" stroke="none" ')


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
