"""``trt-cam methods``: what the explanation methods are."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.output import say


def add(commands: Any) -> None:
    """Options of ``methods``."""
    parser = commands.add_parser("methods", help="list the explanation methods, or describe one")
    parser.add_argument("name", nargs="?", help="name of one method")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One line per method, or all about one."""
    from trt_cam.listing import description, summaries

    say(description(chosen.name) if chosen.name else "\n".join(summaries()))
    return 0
