"""The command ``trt-cam``: the words of the Python API; one clear line per error; exit 2 for usage, 1 for failure.

A command is a module with ``add``, which describes its options and names the function that runs it, in `COMMANDS`.
Words are checked before anything heavy is imported, places and files before torch is: hence imports inside functions.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent

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
from trt_cam.cli.parser import Parser
from trt_cam.errors import InputError, TrtCamError

COMMANDS = (localize, compare, methods, models, data, evaluate, report, pseudo_label, train, importing, export)

EXAMPLES = """
trt-cam localize photo.jpg --out found.png       # a box, a class and a heat map; works offline
trt-cam compare photo.jpg                        # the same photo under several methods
trt-cam train --help                             # what a command is for, its options and examples
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments
        Words after the program's name; None takes the process's own.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
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
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        known = isinstance(error, OSError) and error.filename is not None
        complain(of_file(error) if known else unforeseen(error))  # type: ignore[arg-type]
        return FAILURE


TRACEBACK = "TRT_CAM_TRACEBACK"
"""Variable of the environment that has the whole traceback of an unforeseen error printed."""


def of_file(error: OSError) -> str:
    """A file that the system refused, where no line of ours says which it was for."""
    return f"{error.filename} cannot be read or written ({error.strerror}); check the path, its mode and the disk"


def unforeseen(error: Exception) -> str:
    """An error that no line of ours words: what it is, and where it came up."""
    ours = str(Path(__file__).parent.parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(ours)]
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return (
        f"{type(error).__name__}{place}: {str(error).strip() or 'it says no more'}; this was not foreseen: "
        f"{TRACEBACK}=1 prints all of it, for a report"
    )


def warner() -> Callable[..., None]:
    """Says each warning once: a run of many photos would repeat it for each."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = str(message)
        if text not in said:
            complain(text, kind="warning: ")
        said.add(text)

    return show


def build_parser() -> Parser:
    """All commands and options. Nothing heavy is imported before a command runs."""
    parser = Parser(
        prog="trt-cam",
        usage="%(prog)s COMMAND [options]",
        description="Heat maps and boxes of the objects in photos, from transformers that saw image labels only.",
        epilog="examples:\n" + indent(EXAMPLES.strip(), "  ") + "\n\nMore is in docs/quickstart.md.",
    )
    parser.add_argument("--version", action="version", version=f"trt-cam {__version__}", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
