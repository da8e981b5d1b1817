"""``trt-cam import``: a checkpoint of the TRT or TS-CAM authors' code, as a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trt_cam.cli.options import choice, quieten, sides
from trt_cam.cli.output import check_folder, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import COUNT, KEPT, LEAST_0, PIXELS, POSITIVE, filled
from trt_cam.errors import InputError

TEXT = """
Turn a checkpoint of the TRT or TS-CAM authors' code, a .pth file, into a folder that --model of every command
takes. The file is read without running anything in it. Prints what was found: method, classes, size of input.
"""
EXAMPLES = """
trt-cam import model_best.pth --out cub-trt
trt-cam import model_best.pth --out cub-trt --u 0.65 --classes names.txt
trt-cam localize bird.jpg --model cub-trt
"""


def add(commands: Any) -> None:
    """Options of ``import``."""
    parser = add_command(
        *(commands, "import", "turn a checkpoint of the TRT or TS-CAM authors' code into a model's folder"),
        usage="FILE --out DIR [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/export.md",
    )
    parser.add_argument("checkpoint", type=filled, metavar="FILE", help="the .pth file")
    parser.add_argument("--out", required=True, type=filled, metavar="DIR", help="folder of the model")
    choice(
        *(parser, "--method", ("auto", "trt", "ts-cam")),
        "what the file is a checkpoint of (default: auto, by its tensors)",
        "auto",
    )
    parser.add_argument(
        "--num-heads", type=COUNT, metavar="N", help="attention heads (default: width / 64, as in all of DeiT)"
    )
    parser.add_argument(
        "--u", type=KEPT, default=0.65, metavar="SHARE", help="share of attention that TRT's selection keeps, in (0, 1]"
    )
    parser.add_argument("--classes", type=filled, metavar="FILE", help="class names: a line each, or a JSON list")
    parser.add_argument(
        "--size",
        type=PIXELS,
        nargs="+",
        metavar="PIXELS",
        help="of the input, one or height and width (default: the checkpoint's own)",
    )
    for name, kind in (("mean", LEAST_0), ("std", POSITIVE)):
        parser.add_argument(
            f"--{name}",
            type=kind,
            nargs=3,
            metavar=("R", "G", "B"),
            help="that pixels in [0, 1] were normalised by (default: ImageNet's)",
        )
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Read, write, say what it is."""
    quieten()
    check_folder(Path(chosen.out))
    if Path(chosen.checkpoint).is_dir():
        raise InputError(f"a checkpoint's file was needed, got the folder {chosen.checkpoint}; name a .pth file in it")
    size, classes = sides(chosen.size), names_of(chosen.classes)
    from trt_cam.models.importing import import_checkpoint

    net = import_checkpoint(
        chosen.checkpoint,
        method=chosen.method,
        num_heads=chosen.num_heads,
        u=chosen.u,
        classes=classes,
        size=size,
        mean=chosen.mean,
        std=chosen.std,
    )
    net.save_pretrained(chosen.out, card={"notes": f"Imported from `{Path(chosen.checkpoint).name}`."})
    height, width = net.preprocessing.size
    say(f"{type(net).__name__} of {net.num_classes} classes, input {height} x {width} -> {chosen.out}")
    return 0


def names_of(path: str | None) -> list[str] | None:
    """Class names of a file: a JSON list, or a line each."""
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--classes needs a file of names, but {path} cannot be read so: {reason}") from None
    names = [one.strip() for one in found if isinstance(one, str) and one.strip()]
    if not names or (isinstance(found, list) and not all(isinstance(one, str) for one in found)):
        raise InputError(f"--classes needs a name in each line, or a JSON list of names, got something else in {path}")
    return names
