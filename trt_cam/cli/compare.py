"""``trt-cam compare``: one photo under several methods."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trt_cam.cli.options import (
    add_methods,
    add_model,
    add_photo,
    add_refine,
    add_threshold,
    common,
    quieten,
)
from trt_cam.cli.output import FAILURE, check_picture, complain, make_folder, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import filled, photo
from trt_cam.errors import InputError

TEXT = """
Explain one photo by several methods on the same model and for the same class, side by side.
Writes one figure, and prints a line for each method: class with its probability, and the box in pixels.
A method that the model cannot carry is left out and named.
"""
EXAMPLES = """
trt-cam compare photo.jpg
trt-cam compare photo.jpg --methods trt,grad-cam,rollout --out compare.png
trt-cam compare photo.jpg --methods rollout,raw-attention --set rollout.head_fusion=max --faithfulness
"""


def add(commands: Any) -> None:
    """Options of ``compare``."""
    parser = add_command(
        *(commands, "compare", "explain one photo by several methods, side by side"),
        usage="PHOTO [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/compare.md",
    )
    parser.add_argument("photo", type=photo, metavar="PHOTO", help="one file")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=filled, metavar="FILE", default="compare.png", help="the figure")
    output.add_argument("--json", action="store_true", help="print one line of JSON for each method")
    output.add_argument(
        "--faithfulness",
        action="store_true",
        help="measure too how much the class depends on what each map marks: insertion, deletion, average drop and "
        "increase, max-sensitivity; takes hundreds of forwards for each method",
    )
    look = parser.add_argument_group("what to look for, and how")
    add_photo(look)
    add_methods(look, "auto,grad-cam,raw-attention,rollout")
    add_refine(look)
    add_threshold(look)
    add_model(parser.add_argument_group("model"))
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One figure, and a line per method."""
    quieten()
    from trt_cam.data.photos import load_photo

    out = Path(chosen.out).expanduser()
    check_picture(out)
    try:
        photo = load_photo(chosen.photo)
    except InputError as error:  # a failure of this photo, not of usage
        complain(str(error))
        return FAILURE
    make_folder(out.parent)
    from trt_cam.listing import methods_with_settings
    from trt_cam.report.comparison import compare

    methods = methods_with_settings(chosen.methods, chosen.set)
    comparison = compare(photo, methods, out=out, faithfulness=chosen.faithfulness, **common(chosen))
    for name, result in comparison.results.items():
        scores = comparison.scores.get(name, {})
        if chosen.json:
            more = {"faithfulness": scores} if scores else {}
            say(json.dumps(result.to_json() | {"path": chosen.photo} | more))
            continue
        boxes = " ".join(str(box) for box in result.boxes.tolist()) or "no box"
        say("  ".join([name, result.caption, boxes, *(f"{key} {value:.3f}" for key, value in scores.items())]))
    for name, why in comparison.refused.items():
        complain(why, kind=f"{name} left out: ")
    if not chosen.json:
        say(f"-> {chosen.out}")
    return 0
