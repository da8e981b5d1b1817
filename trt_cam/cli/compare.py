"""``trt-cam compare``: one photo under several methods."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trt_cam.cli.options import add_common, common, quieten
from trt_cam.cli.output import FAILURE, complain, make_folder, say
from trt_cam.errors import InputError


def add(commands: Any) -> None:
    """Options of ``compare``."""
    parser = commands.add_parser("compare", help="explain one photo by several methods, side by side")
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("--methods", default="auto,grad-cam,raw-attention,rollout", help="separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="an option of a method")
    parser.add_argument("--faithfulness", action="store_true", help="how much the class depends on what is marked")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each method")
    parser.add_argument("--out", metavar="FILE", default="compare.png", help="the figure (default: %(default)s)")
    add_common(parser)
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One figure, and a line per method."""
    quieten()
    from trt_cam.data.photos import load_photo
    from trt_cam.listing import methods_with_settings
    from trt_cam.report.comparison import compare

    try:
        photo = load_photo(chosen.photo)
    except InputError as error:  # a failure of this photo, not of usage
        complain(str(error))
        return FAILURE
    make_folder(Path(chosen.out).expanduser().parent)
    methods = methods_with_settings(chosen.methods, chosen.set)
    comparison = compare(photo, methods, out=chosen.out, faithfulness=chosen.faithfulness, **common(chosen))
    for name, result in comparison.results.items():
        scores = comparison.scores.get(name, {})
        if chosen.json:
            say(json.dumps(result.to_json() | ({"faithfulness": scores} if scores else {})))
            continue
        boxes = " ".join(str(box) for box in result.boxes.tolist()) or "no box"
        say("  ".join([name, result.caption, boxes, *(f"{key} {value:.3f}" for key, value in scores.items())]))
    for name, why in comparison.refused.items():
        complain(why, kind=f"{name} left out: ")
    if not chosen.json:
        say(f"-> {chosen.out}")
    return 0
