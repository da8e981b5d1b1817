"""The command ``trt-cam``: the words of the Python API; one clear line per error; exit 2 for usage, 1 for failure.

A command is a module with ``add``, which describes its options and names the function that runs it, in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from trt_cam import __version__
from trt_cam.cli import (
    compare,
    data,
    evaluate,
    export,
    importing,
    localize,
    methods,
    models,
    pseudo_label,
    report,
    train,
)
from trt_cam.cli.output import FAILURE, INTERRUPTED, USAGE, complain
from trt_cam.errors import InputError, TrtCamError

COMMANDS = (localize, compare, methods, models, data, evaluate, report, pseudo_label, train, importing, export)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments
        Words after the program's name; None takes the process's own.
    """
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        chosen = build_parser().parse_args(words, argparse.Namespace(words=words))
        command: Callable[[argparse.Namespace], int] = chosen.command
        with warnings.catch_warnings():
            warnings.showwarning = warner()
            return command(chosen)
    except SystemExit as done:  # argparse ends --help and usage errors so
        return int(done.code or 0)
    except TrtCamError as error:
        complain(str(error))
        return USAGE if isinstance(error, InputError) else FAILURE
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # Python flushes it once more at exit
        return FAILURE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED


def warner() -> Callable[..., None]:
    """Says each warning once: a run of many photos would repeat it for each."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = str(message)
        if text not in said:
            complain(text, kind="warning: ")
        said.add(text)

    return show


class Parser(argparse.ArgumentParser):
    """argparse with one line per error."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        raise SystemExit(USAGE)


def build_parser() -> argparse.ArgumentParser:
    """All commands and options. Nothing heavy is imported before a command runs."""
    parser = Parser(prog="trt-cam", description="Heat maps and boxes of the objects in photos.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"trt-cam {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser
