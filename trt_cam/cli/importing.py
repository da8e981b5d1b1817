"""``trt-cam import``: a checkpoint of the TRT or TS-CAM authors' code, as a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trt_cam.cli.options import quieten, sides
from trt_cam.cli.output import say
from trt_cam.errors import InputError


def add(commands: Any) -> None:
    """Options of ``import``."""
    parser = commands.add_parser(
        "import",
        help="make a folder of a checkpoint of the TRT or TS-CAM authors' code",
        description="Read a .pth file without running anything in it, and write the network as a folder that --model "
        "of every command takes.",
    )
    parser.add_argument("checkpoint", metavar="FILE", help="the .pth file")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the network")
    parser.add_argument("--method", default="auto", help="trt or ts-cam (default: by the file's tensors)")
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads (default: width / 64)")
    parser.add_argument("--u", type=float, default=0.65, help="of TRT: share of attention to keep (default: 0.65)")
    parser.add_argument("--classes", metavar="FILE", help="class names: a line each, or a JSON list")
    parser.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="of the input, one or H W (default: own)")
    parser.add_argument("--mean", type=float, nargs=3, metavar="SHARE", help="of R, G, B (default: ImageNet's)")
    parser.add_argument("--std", type=float, nargs=3, metavar="SHARE", help="of R, G, B (default: ImageNet's)")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """Read, write, say what it is."""
    quieten()
    from trt_cam.models.importing import import_checkpoint

    net = import_checkpoint(
        chosen.checkpoint,
        method=chosen.method,
        num_heads=chosen.num_heads,
        u=chosen.u,
        classes=names_of(chosen.classes),
        size=sides(chosen.size),
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
        raise InputError(f"--classes {path} must be a file of names, got: {error}") from None
    names = [one.strip() for one in found if isinstance(one, str) and one.strip()]
    if not names or (isinstance(found, list) and not all(isinstance(one, str) for one in found)):
        raise InputError(f"--classes {path} must hold a name in each line, or a JSON list of names")
    return names
