"""``trt-cam export``: a model with its method as one ONNX file."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.options import quieten, sides
from trt_cam.cli.output import say
from trt_cam.errors import InputError


def add(commands: Any) -> None:
    """Options of ``export``."""
    parser = commands.add_parser(
        "export",
        help="write a model with its method as an ONNX file",
        description="The file takes photos (B, H, W, 3), uint8 RGB of the model's size, and gives logits and the heat "
        "that `trt-cam localize` makes its boxes of; class names and threshold are in its metadata. docs/export.md and "
        "examples/boxes_with_onnxruntime.py show how boxes come of it without torch.",
    )
    parser.add_argument("model", nargs="?", help="a timm name, a folder or hf-hub:owner/name (default: embedded)")
    parser.add_argument("--out", required=True, metavar="FILE", help="such as model.onnx")
    parser.add_argument("--method", default="auto", help="see `trt-cam methods`; one of a single pass forward")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the method")
    parser.add_argument("--refine", default="default", help="default (the model's own), affinity or none")
    parser.add_argument("--threshold", type=float, metavar="SHARE", help="of the map's maximum, for the metadata")
    parser.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="of the input, one or H W (default: own)")
    parser.add_argument("--batch", default="dynamic", metavar="N", help="photos at a time (default: dynamic, any)")
    parser.add_argument("--half", action="store_true", help="store weights as float16: half of the size")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Write the file; say how large it is and how near to PyTorch."""
    quieten()
    from trt_cam.export import export_onnx
    from trt_cam.listing import with_settings

    if chosen.batch != "dynamic" and not chosen.batch.isdecimal():
        raise InputError(f"--batch must be dynamic or a number of photos, got {chosen.batch!r}")
    made = export_onnx(
        chosen.model,
        chosen.out,
        method=with_settings(chosen.method, chosen.set),
        refine=None if chosen.refine == "none" else chosen.refine,
        threshold=chosen.threshold,
        size=sides(chosen.size),
        batch="dynamic" if chosen.batch == "dynamic" else int(chosen.batch),
        half=chosen.half,
    )
    say(
        f"-> {made.path}  {made.bytes / 1e6:.1f} MB; differs from PyTorch by {made.logits:.1g} in logits, "
        f"{made.heat:.1g} in heat"
    )
    return 0
