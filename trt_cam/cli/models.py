"""``trt-cam models``: the models that can be named."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.output import say
from trt_cam.errors import InputError


def add(commands: Any) -> None:
    """Options of ``models``."""
    parser = commands.add_parser("models", help="list the models that can be named")
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'deit*'")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One name per line."""
    from trt_cam.models.catalog import model_names

    names = model_names(chosen.pattern)
    if not names:
        raise InputError(f"no model name matches {chosen.pattern!r}; `trt-cam models` lists all")
    say("\n".join(names))
    return 0
