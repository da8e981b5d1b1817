"""``trt-cam models``: the models that can be named."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.output import say
from trt_cam.cli.parser import add_command, nearest
from trt_cam.cli.values import filled
from trt_cam.errors import InputError

TEXT = """
List the names that --model takes, one a line: the model in this package, trt-lite0, and timm's vision
transformers. Weights of timm's are downloaded at first use. --model takes other timm models too, with the
methods that fit them.
"""
EXAMPLES = """
trt-cam models
trt-cam models 'deit*'
"""


def add(commands: Any) -> None:
    """Options of ``models``."""
    parser = add_command(
        *(commands, "models", "list the models that can be named"),
        usage="[PATTERN]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/models.md",
    )
    parser.add_argument("pattern", nargs="?", default="*", type=filled, metavar="PATTERN", help="quoted, with * and ?")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One name per line."""
    from trt_cam.models.catalog import model_names

    names = model_names(chosen.pattern)
    if not names:
        near = nearest(chosen.pattern, model_names()) or "; `trt-cam models` lists all"
        raise InputError(f"a name or pattern of models was needed, got {chosen.pattern!r}, which none matches{near}")
    say("\n".join(names))
    return 0
