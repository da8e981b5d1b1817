"""The page that shows what ``model_table`` found."""

from __future__ import annotations

import re
from typing import Any

import timm
import torch

from trt_cam.explainers import get_explainer, list_explainers

SIGNS = {"oracle": "●", "conforms": "○", "refused": "–", "fault": "✗"}

METHODS = (
    ("Gradient of one layer", {"gradient"}),
    ("Activation of one layer", {"activation"}),
    ("More forwards", {"forward", "replay"}),
    ("Classifier and features", {"classifier"}),
    ("Features of patches", {"features"}),
    ("Attention rows", {"rows"}),
    ("Products of attention", {"attention"}),
    ("Gradient of attention", {"attention gradient"}),
)
"""Groups of methods by what they require; the first that fits."""

GROUPS = {
    "row": "Attention rows of a class token or an attention pool, through all blocks",
    "patches": "Attention over patches, read as the mean over their rows",
    "class attention": "Class attention, and class tokens that join late or read one stage",
    "spatial": "A map or tokens without attention rows",
    "refused": "Refused whole",
    "other": "Not timm's",
}

HEAD = """# Which method on which model

Made by `python examples/model_table.py --resume table.jsonl --write docs/models.md` with trt_cam {ours}, timm {timm},
torch {torch}: the smallest model of each of timm's {count} modules, with random weights, on two random images.

| sign | the map |
| --- | --- |
| ● | equals the method's formula (1), and all of ○ |
| ○ | is finite, on the grid of timm's own `forward_intermediates`, and the same for a batch as for an image alone (2) |
| – | is refused, with one line that says why and what fits |
| ✗ | is wrong, or the method fails otherwise; listed at the end |

(1) Computed apart, by plain hooks and autograd over the whole graph with fused attention off, in float64; equal to 1e-5
of the map's largest value. (2) To 2e-3 in float32, or where much cancels out to 1e-6 in float64.

*Places*: each of 3 x 3 parts of a photo is changed; the mean rank of that part among the nine in what changes of the
layer under explanation, 1 for always the first, 0.5 for chance. No other reading of the map, mirrored or transposed,
fits better in any row without ✗. Inputs are not square where the model takes that.

Columns:

{columns}

"""


def columns() -> list[tuple[str, list[str]]]:
    """Methods by group."""
    left = [name for name in list_explainers() if "trt" not in get_explainer(name).requires]
    found = []
    for title, words in METHODS:
        fits = [name for name in left if words & get_explainer(name).requires and not is_later(name, words)]
        found.append((title, fits))
        left = [name for name in left if name not in fits]
    return [(title, names) for title, names in [*found, ("Other", left)] if names]


def is_later(name: str, words: set[str]) -> bool:
    """Whether a method has a place of its own further down: several forwards, or rows beside a classifier."""
    requires = get_explainer(name).requires
    return words == {"activation"} and bool(requires & {"forward", "replay"})


def kind(text: str) -> str:
    return text.split(":")[0]


def group(row: dict[str, Any]) -> str:
    if row["module"].startswith(("torchvision", "transformers")):
        return "other"
    if row.get("family", "refused") == "refused":
        return "refused"
    if row.get("row") is None:
        return "spatial"
    if not row["whole"]:
        return "class attention"
    return "patches" if row["row"].startswith("mean") else "row"


def page(rows: list[dict[str, Any]]) -> str:
    """The page of rows that a sweep wrote."""
    from trt_cam import __version__

    names, listed = [], []
    for title, methods in columns():
        numbered = [f"{len(names) + index} `{name}`" for index, name in enumerate(methods, 1)]
        listed.append(f"- {title}: {', '.join(numbered)}")
        names += methods
    count = sum("," not in row["module"] and group(row) != "other" for row in rows)
    versions = {"ours": __version__, "timm": timm.__version__, "torch": torch.__version__.split("+")[0]}
    out = [HEAD.format(**versions, count=count, columns="\n".join(listed))]
    out.append(summary(rows))
    for key, title in GROUPS.items():
        members = sorted((row for row in rows if group(row) == key), key=lambda row: row["module"])
        if members and key != "refused":
            out += [f"\n## {title}\n", table(members, names)]
    out.append(reasons(rows))
    faults = [
        f"- {row['module']}, {method}: {text.removeprefix('fault: ')}"
        for row in rows
        for method, text in [("all", f"fault: {row.get('fault')}")] * ("fault" in row)
        + list(row.get("cells", {}).items())
        if kind(text) == "fault"
    ]
    return "\n".join(out) + "\n" + ("\n## Faults\n\n" + "\n".join(faults) + "\n" if faults else "")


def summary(rows: list[dict[str, Any]]) -> str:
    kinds = [kind(text) for row in rows for text in row.get("cells", {}).values()]
    counts = {one: kinds.count(one) for one in SIGNS}
    words = ", ".join(f"{SIGNS[one]} {counts[one]}" for one in SIGNS)
    return f"{len(kinds)} cells: {words}."


def table(rows: list[dict[str, Any]], names: list[str]) -> str:
    numbers = " | ".join(str(index) for index in range(1, len(names) + 1))
    lines = [f"| module | model | input | grid | layer | places | {numbers} |", "| --- " * (6 + len(names)) + "|"]
    for row in rows:
        signs = " | ".join(SIGNS[kind(row["cells"][name])] if name in row.get("cells", {}) else " " for name in names)
        sides = ["x".join(map(str, row[key])) if row.get(key) else "" for key in ("size", "grid")]
        score = row.get("places", {}).get("activation")
        placed = "" if score is None else f"{score[0]:.2f}"
        model = f"`{row.get('model')}`" + ("".join(f", {k}={v}" for k, v in row.get("settings", {}).items()))
        lines.append(f"| {row['module']} | {model} | {' | '.join(sides)} | `{row.get('layer')}` | {placed} | {signs} |")
    return "\n".join(lines)


def reasons(rows: list[dict[str, Any]]) -> str:
    """Each refusal once, with the modules and the methods that it is given to."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for row in rows:
        for method, text in row.get("cells", {}).items():
            if kind(text) == "refused":
                reason = text.removeprefix("refused: ").split("; explainers that fit")[0].replace(repr(method), "...")
                reason = re.sub(r"gives only \[.*\]", "gives it not", reason).replace(row["class"], "the model")
                modules, methods = found.setdefault(reason, (set(), set()))
                modules.add(row["module"])
                methods.add(method)
    lines = ["\n## Why a method is refused\n", "| line | methods | modules |", "| --- | --- | --- |"]
    for reason, (modules, methods) in sorted(found.items(), key=lambda item: -len(item[1][0])):
        lines.append(f"| {reason.replace('|', '/')} | {listing(methods, 6)} | {listing(modules, 8)} |")
    return "\n".join(lines)


def listing(names: set[str], most: int) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
