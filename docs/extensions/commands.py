"""command-line.md: what ``--help`` of each command prints, made from the parsers themselves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sphinx.application import Sphinx

WIDTH = 98  # columns, on whatever terminal this is built
HEAD = """# The command line

What each command prints for `--help`.
"""


@contextmanager
def terminal(columns: int) -> Iterator[None]:
    """A terminal of that width and without colours, which argparse asks the environment for."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": str(columns), "NO_COLOR": "1"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of the commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in dict.fromkeys(action.choices.values()):
                yield from commands(below)


def page() -> str:
    """All of command-line.md."""
    from trt_cam.cli import build_parser

    with terminal(WIDTH):
        parts = [f"## {one.prog}\n\n```text\n{one.format_help().rstrip()}\n```\n" for one in commands(build_parser())]
    return "\n".join([HEAD, *parts])


def write(app: Sphinx) -> None:
    """Make the page."""
    (Path(app.srcdir) / "command-line.md").write_text(page(), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make it before pages are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
