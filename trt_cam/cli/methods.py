"""``trt-cam methods``: what the explanation methods are."""

from __future__ import annotations

import argparse
from typing import Any

from trt_cam.cli.output import say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import filled

TEXT = """
List the explanation methods, a line for each; or describe one: what it computes, its paper, what it needs
of a model, and each of its options with default and meaning, as --set of other commands takes them.
"""
EXAMPLES = """
trt-cam methods
trt-cam methods grad-cam
"""


def add(commands: Any) -> None:
    """Options of ``methods``."""
    parser = add_command(
        *(commands, "methods", "list the explanation methods, or describe one"),
        usage="[NAME]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/methods.md",
    )
    parser.add_argument("name", nargs="?", type=filled, metavar="NAME", help="one method (default: list all)")
    parser.set_defaults(command=run)


def run(chosen: argparse.Namespace) -> int:
    """One line per method, or all about one."""
    from trt_cam.listing import description, summaries

    say(description(chosen.name) if chosen.name else "\n".join(summaries()))
    return 0
