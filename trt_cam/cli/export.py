"""``trt-cam export``: a model with its method as one ONNX file."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.options import add_method, add_refine, add_threshold, quieten, refinement, sides
from trt_cam.cli.output import say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import COUNT, PIXELS, Or, filled

TEXT = """
Write a model with its method as one ONNX file, to run it without PyTorch. It takes photos (B, H, W, 3), uint8 RGB,
resized to the model's size, and gives logits (B, K) and the heat (B, H, W) that `trt-cam localize` makes its
boxes of; class names and threshold are in its metadata. examples/boxes_with_onnxruntime.py makes boxes of it.
Prints the file's size and how far it is from PyTorch. Needs: pip install 'trt-cam[onnx]'.
"""
EXAMPLES = """
trt-cam export --out model.onnx
trt-cam export runs/mine/model --out mine.onnx --half
trt-cam export deit_small_patch16_224 --method ts-cam --refine affinity --batch 1 --out small.onnx
"""


def add(commands: Any) -> None:
    """Options of ``export``."""
    parser = add_command(
        *(commands, "export", "write a model with its method as an ONNX file"),
        usage="[MODEL] --out FILE [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/export.md",
    )
    parser.add_argument(
        "model",
        nargs="?",
        type=filled,
        metavar="MODEL",
        help="a name of `trt-cam models`, a folder, or hf-hub:OWNER/NAME (default: trt-lite0, in this package)",
    )
    parser.add_argument("--out", required=True, type=filled, metavar="FILE", help="such as model.onnx")
    add_method(parser)
    add_refine(parser, ("default", "affinity", "none"))
    add_threshold(parser)
    parser.add_argument(
        "--size",
        type=PIXELS,
        nargs="+",
        metavar="PIXELS",
        help="of the input, one or height and width (default: the model's own)",
    )
    parser.add_argument(
        "--batch",
        type=Or(("dynamic",), COUNT),
        default="dynamic",
        metavar="N",
        help="photos at a time, or dynamic for any number",
    )
    parser.add_argument("--half", action="store_true", help="store weights as float16: half of the size")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Write the file; say how large it is and how near to PyTorch."""
    quieten()
    size = sides(chosen.size)
    from trt_cam.export import export_onnx
    from trt_cam.listing import with_settings

    made = export_onnx(
        chosen.model,
        chosen.out,
        method=with_settings(chosen.method, chosen.set),
        refine=refinement(chosen),
        threshold=chosen.threshold,
        size=size,
        batch=chosen.batch,
        half=chosen.half,
    )
    say(
        f"-> {made.path}  {made.bytes / 1e6:.1f} MB; differs from PyTorch by {made.logits:.1g} in logits, "
        f"{made.heat:.1g} in heat"
    )
    return 0
