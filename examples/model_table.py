"""Every method on every model family of timm's registry: what it gives, or why it is refused.

    python examples/model_table.py --rows table.jsonl --write docs/models.md

takes the smallest model of each timm module, with random weights, two random images, and for each method checks

* that the map has the grid that timm's own ``forward_intermediates`` gives, found without our reading of layouts;
* that the activation under explanation lies at the right places: each position is most like the same one there;
* that maps are finite, and that a batch gives what single images give.

It goes on where it stopped, and takes about half an hour of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

import trt_cam
from trt_cam.errors import TrtCamError
from trt_cam.explainers import create_explainer, get_explainer, list_explainers

CNNS = tuple(
    word
    for line in (
        "byobnet csp convm convn dense dla dpn efficientnet fasternet ghost hardcore hgnet hrnet inception lcnet",
        "mobilenetv3 nasnet nfnet pnas rdnet regnet rep res rexnet selecsls senet sknet star tresnet vgg vovnet xcep",
    )
    for word in line.split()
)
"""How the modules of CNNs begin: they come last."""

CHEAP: dict[str, dict[str, Any]] = {
    "score-cam": {"channels": 2},
    "ss-cam": {"channels": 2, "samples": 2},
    "is-cam": {"channels": 2, "samples": 2},
    "ablation-cam": {"channels": 2},
    "occlusion": {"window": 160, "stride": 160},
    "rise": {"masks": 2},
    "smooth-grad-cam++": {"samples": 2},
}
"""Settings that keep the costly methods cheap here."""


def smallest() -> dict[str, str]:
    """Name of the model with the fewest parameters of each timm module."""
    from timm.models._registry import _model_to_module

    found: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        module = _model_to_module[name]
        if module in found and any(word in name for word in ("huge", "giant", "large", "base", "_l", "_xl")):
            continue
        try:
            with torch.device("meta"):
                size = sum(one.numel() for one in timm.create_model(name).parameters())
        except Exception:  # some models compute with real numbers when they are made
            continue
        found[module] = min(found.get(module, (size, name)), (size, name))
    order = sorted(found, key=lambda module: (module.startswith(CNNS), module))
    return {module: found[module][1] for module in order}


def examine(name: str) -> dict[str, Any]:
    """What every method does on one model."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.randn(2, *timm.data.resolve_data_config({}, model=model)["input_size"])
    with torch.no_grad():
        try:
            theirs = model.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        except Exception:
            theirs = None
    row: dict[str, Any] = {"model": name, "class": type(model).__name__, "cells": {}}
    row["grid"] = None if theirs is None else list(theirs.shape[-2:])
    row["order"] = places(model, images, theirs)
    for method in list_explainers():
        row["cells"][method] = cell(method, model, images, row["grid"])
    return row


def cell(method: str, model: Any, images: Tensor, grid: list[int] | None) -> str:
    """ "ok", "refused: why", or "fault: what"."""
    try:
        explain = create_explainer(method, model, **CHEAP.get(method, {}))
        found = explain(images, [1, 4])
        alone = found if method in CHEAP else explain(images[1:], 4)  # theirs are made image by image anyway
    except TrtCamError as error:
        return f"refused: {error}"
    except TimeoutError:
        raise
    except Exception as error:
        return f"fault: {type(error).__name__}: {str(error)[:200]}"
    if grid is not None and list(found.grid_size) != grid:
        return f"fault: grid {found.grid_size}, expected {grid}"
    if not found.grid.isfinite().all():
        return "fault: not finite"
    scale = found.grid[1:].abs().max().clamp(min=1e-12)
    if (found.grid[1:] - alone.grid[-1:]).abs().max() > 2e-3 * scale:
        if images.dtype == torch.float32:  # rounding, where large terms cancel
            return cell(method, copy.deepcopy(model).double(), images.double(), grid)
        return "fault: a batch gives another map than an image alone"
    return "ok"


def places(model: Any, images: Tensor, theirs: Tensor | None) -> str:
    """Share of positions whose activation is most like the same position of timm's map."""
    try:
        explain = create_explainer("eigen-cam", model)
        ours = explain.look(images, frozenset({"activation"}), None).activation()
    except TrtCamError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"fault: {error}"
    if theirs is None or ours.shape[-2:] != theirs.shape[-2:] or ours.shape[1] != theirs.shape[1]:
        return "not comparable"
    a, b = (normal(one.flatten(2).transpose(1, 2)) for one in (ours, theirs))
    best = (a @ b.transpose(1, 2)).argmax(dim=-1)
    return f"{(best == torch.arange(a.shape[1])).float().mean():.0%}"


def normal(tokens: Tensor) -> Tensor:
    """Tokens (B, N, D) without what all positions share, of length 1."""
    tokens = tokens - tokens.mean(dim=1, keepdim=True)
    return F.normalize(tokens - tokens.mean(dim=2, keepdim=True), dim=-1)


LIMIT = 300  # seconds for one model


def too_long(*_: Any) -> None:
    raise TimeoutError


def sweep(rows: Path, only: str | None, part: str) -> None:
    """Examine what is not yet in the file."""
    done = {json.loads(line)["module"] for line in rows.read_text().splitlines()} if rows.exists() else set()
    index, parts = map(int, part.split("/"))
    for number, (module, name) in enumerate(smallest().items()):
        if module in done or (only and module != only) or number % parts != index:
            continue
        signal.alarm(LIMIT)
        try:
            row = {"module": module, **examine(name)}
        except TimeoutError:
            print(module, name, f"left out: more than {LIMIT} s")
            continue
        finally:
            signal.alarm(0)
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        faults = [f"{method}: {text}" for method, text in row["cells"].items() if text.startswith("fault")]
        print(module, name, row["grid"], row["order"], *faults, sep="  ", flush=True)


def groups() -> dict[str, list[str]]:
    """Methods by what they need."""
    found: dict[str, list[str]] = {}
    for name in list_explainers():
        if "trt" not in get_explainer(name).requires:
            found.setdefault(", ".join(sorted(get_explainer(name).requires)), []).append(name)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Which method on which model",
        "",
        f"Made by `python examples/model_table.py --write docs/models.md` with timm {timm.__version__} and torch "
        f"{torch.__version__.split('+')[0]}: the smallest model of each timm module, random weights. A number is how "
        "many of the column's methods gave a finite map on the grid of timm's own `forward_intermediates`, the same "
        "for a batch as for an image alone; a dash means that all are refused, with a line that names what fits. "
        "*Places* is the share of positions whose activation is most like the same position of timm's map.",
        "",
    ]
    columns = groups()
    for number, names in enumerate(columns.values(), 1):
        lines.append(f"{number}. {', '.join(f'`{name}`' for name in names)}")
    lines += ["", "| timm module | model | grid | places | " + " | ".join(map(str, range(1, len(columns) + 1))) + " |"]
    lines.append("| --- " * (len(columns) + 4) + "|")
    for row in sorted(rows, key=lambda row: row["module"]):
        cells = []
        for names in columns.values():
            good = sum(row["cells"].get(name) == "ok" for name in names)
            faults = sum(row["cells"].get(name, "").startswith("fault") for name in names)
            cells.append((f"{good}" if good else "–") + (f", {faults} faults" if faults else ""))
        grid = "x".join(map(str, row["grid"])) if row["grid"] else "–"
        order = "–" if row["order"].startswith(("refused", "not")) else row["order"]
        lines.append(f"| {row['module']} | `{row['model']}` | {grid} | {order} | {' | '.join(cells)} |")
    lines += ["", "## Why a method is refused", ""]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for method, text in row["cells"].items():
            if text.startswith("refused") and "trt" not in get_explainer(method).requires:
                reason = text.removeprefix("refused: ").split("; explainers that fit")[0].replace(repr(method), "...")
                reasons.setdefault(reason.replace(row["class"], "the model"), []).append(row["module"])
    for reason, modules in sorted(reasons.items(), key=lambda item: -len(set(item[1])))[:30]:
        named = sorted(set(modules))
        listed = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
        lines.append(f"- {reason} ({listed})")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("model_table.jsonl"), help="one line for each timm module")
    parser.add_argument("--only", help="one timm module")
    parser.add_argument("--part", default="0/1", help="which part of how many, to share the work between processes")
    parser.add_argument("--write", type=Path, help="where the page goes")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    signal.signal(signal.SIGALRM, too_long)
    sweep(args.rows, args.only, args.part)
    if args.write:
        rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
        args.write.write_text(table(rows))
        print(f"{args.write}: {len(rows)} modules, trt_cam {trt_cam.__version__}")


if __name__ == "__main__":
    main()
