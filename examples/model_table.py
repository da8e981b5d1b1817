"""Every method on every model family of timm's registry: what it gives, or why it is refused.

    python examples/model_table.py --resume table.jsonl --write docs/models.md

takes the smallest model of each timm module, with random weights, two random images, and for each method checks the map
as ``model_checks`` says, without the library's own reading of layouts. Each model has a process of its own and a limit
of time. It goes on where it stopped, and takes about a quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from model_checks import Truth, difference, places
from model_choice import MORE, fitting, intermediates, lively, modules, others, smallest
from torch import Tensor

from trt_cam.errors import TrtCamError
from trt_cam.explainers import create_explainer, get_explainer, list_explainers

LIMIT = 300
"""Seconds that one model may take."""

CHEAP: dict[str, dict[str, Any]] = {
    "score-cam": {"channels": 4},
    "ss-cam": {"channels": 4, "samples": 2},
    "is-cam": {"channels": 4, "samples": 2},
    "ablation-cam": {"channels": 4},
    "occlusion": {"window": 48, "stride": 48},
    "rise": {"masks": 8},
    "smooth-grad-cam++": {"samples": 2},
}
"""Settings that keep the costly methods cheap here."""


def examine(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What every method does on one timm model."""
    start = time.monotonic()
    torch.manual_seed(0)
    settings, size = fitting(name, settings)
    model = timm.create_model(name, num_classes=7, **settings).eval()
    row = {"model": name, "settings": {key: value for key, value in settings.items() if key != "img_size"}}
    row |= cells(model, size, intermediates(model, torch.randn(1, 3, *size)))
    return row | {"seconds": round(time.monotonic() - start, 1)}


def cells(model: Any, size: tuple[int, int], grid: tuple[int, int] | None) -> dict[str, Any]:
    """What every method does on one model: "oracle", "conforms", "refused: why" or "fault: what"."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    lively(model, torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(2)))
    row: dict[str, Any] = {"class": type(model).__name__, "size": size, "grid": grid, "places": {}, "cells": {}}
    found: dict[str, Any] = {}
    for method in list_explainers():
        if "trt" not in get_explainer(method).requires:
            row["cells"][method] = cell(method, model, images, grid)
    row |= described(model)
    taken = [method for method, text in row["cells"].items() if text == "conforms"]
    for method in ("eigen-cam", "hires-cam", "cam", "last-attention"):
        if method in taken:
            explain = create_explainer(method, model)
            look = lambda x, explain=explain: explain(x, 1).grid  # noqa: E731
            if method == "eigen-cam":
                look = lambda x, explain=explain: explain.look(x, frozenset({"activation"}), None).activation()  # noqa: E731
            row["places"]["activation" if method == "eigen-cam" else method] = places(look, images[:1])
    score, words = row["places"].get("activation", (1.0, "right"))
    if words != "right" or score < 0.65:
        row["cells"]["eigen-cam"] = f"fault: places {score:.2f}, {words}"
    model.double()
    try:
        found = truth(model, images.double(), grid)
    except Exception as error:
        row["no oracle"] = f"{type(error).__name__}: {str(error)[:150]}"
    for method in set(found) & set(taken):
        signed = not method.startswith("eigen")
        ours = create_explainer(method, model)(images.double(), [1, 4]).grid
        apart = difference(ours, found[method], signed=signed) if ours.shape == found[method].shape else float("inf")
        row["cells"][method] = "oracle" if apart < 1e-5 else f"fault: differs from its formula by {apart:.1e}"
    return row


def described(model: Any) -> dict[str, Any]:
    """What the library reads of a model, as it says."""
    try:
        explain = create_explainer("occlusion", model)
    except TrtCamError:
        return {"family": "refused"}
    backbone = explain.backbone
    rows = backbone.row if "rows" in backbone.gives else None
    whole = "attention" in backbone.gives
    return {
        "family": backbone.family,
        "pooling": backbone.pooling,
        "layer": backbone.layer,
        "row": rows,
        "whole": whole,
    }


def truth(model: Any, images: Tensor, grid: tuple[int, int] | None) -> dict[str, Tensor]:
    """Maps by plain hooks; the layer and what the classifier reads are the library's word, and printed by it."""
    if grid is None:
        return {}
    backbone = create_explainer("grad-cam", model).backbone
    return Truth(model, images, torch.tensor([1, 4]), backbone.layer, grid, backbone.pooling).maps()


def cell(method: str, model: Any, images: Tensor, grid: tuple[int, int] | None) -> str:
    """ "conforms", "refused: why", or "fault: what"."""
    try:
        explain = create_explainer(method, model, **CHEAP.get(method, {}))
        found = explain(images, [1, 4]).grid
        if tuple(found.shape) != (2, *(grid or found.shape[1:])):
            return f"fault: a map of {tuple(found.shape)}, expected {grid}"
        if not found.isfinite().all():
            return "fault: not finite"
        apart = difference(explain(images[1:], [4]).grid, found[1:])
        if apart > 2e-3:  # rounding may tip a cut, or much cancel out: then float64 says
            model.double()
            images = images.double()
            apart = difference(explain(images[1:], [4]).grid, explain(images, [1, 4]).grid[1:])
            model.float()
            if apart > 1e-6:
                return f"fault: a batch gives another map than an image alone, by {apart:.1e}"
    except TrtCamError as error:
        return f"refused: {error}" if "\n" not in str(error) else f"fault: refused in several lines: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__}: {str(error)[:200]}"
    finally:
        model.float()
    return "conforms"


def examine_other(name: str) -> dict[str, Any]:
    """What every method does on one model that is not timm's."""
    torch.manual_seed(0)
    model = dict(others())[name]().eval()
    grid = None if name.endswith(("ResNet", "SwinTransformer", "Swin")) else (4, 4)
    return {"model": type(model).__name__} | cells(model, (64, 64), grid)


def work(module: str, names: list[str], out: Any) -> None:
    """Examine one model and send the row; in a process of its own."""
    warnings.filterwarnings("ignore")
    try:
        if names:
            row = examine(smallest(names), {})
        elif module in MORE:
            row = examine(*MORE[module])
        else:
            row = examine_other(module)
    except Exception as error:
        row = {"fault": f"{type(error).__name__}: {str(error)[:300]}"}
    out.send(row)


def sweep(rows: Path, only: str | None) -> None:
    """Examine what is not yet in the file."""
    done = {json.loads(line)["module"] for line in rows.read_text().splitlines()} if rows.exists() else set()
    todo = modules() | {name: [] for name in MORE} | {name: [] for name, _ in others()}
    for module, names in todo.items():
        if module in done or (only and module != only):
            continue
        end, other = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=work, args=(module, names, other))
        process.start()
        other.close()
        try:
            row = end.recv() if end.poll(LIMIT) else {"fault": f"took more than {LIMIT} s"}
        except EOFError:
            row = {"fault": "the process died"}
        process.kill()
        process.join()
        with rows.open("a") as file:
            file.write(json.dumps({"module": module, **row}) + "\n")
        faults = [f"{method}: {text}" for method, text in row.get("cells", {}).items() if text.startswith("fault")]
        kinds = [text.split(":")[0] for text in row.get("cells", {}).values()]
        counts = {kind: kinds.count(kind) for kind in ("oracle", "conforms", "refused", "fault")}
        print(module, row.get("model"), row.get("size"), row.get("grid"), counts, row.get("places"), end="  ")
        print(row.get("seconds"), row.get("no oracle", ""), row.get("fault", ""), *faults, sep="  ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--resume", "--rows", type=Path, default=Path("model_table.jsonl"), help="one line for each model"
    )
    parser.add_argument("--only", help="one timm module, or a row of the table")
    parser.add_argument("--write", type=Path, help="where the page goes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sweep(args.resume, args.only)
    if args.write:
        from model_page import page

        rows = [json.loads(line) for line in args.resume.read_text().splitlines()]
        args.write.write_text(page(rows))


if __name__ == "__main__":
    main()
