"""The parser of every command: help that teaches, and errors of one line: what was needed, what came, what to do."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from trt_cam.cli.output import USAGE, complain, say

WIDEST = 100  # columns of the help

SAID = (
    (r"argument (\S+): expected (?:one|at least one) argument", r"\1 needs a value, got none"),
    (r"argument (\S+): expected (\d+) arguments", r"\1 needs \2 values"),
    (r"argument (\S+): ignored explicit argument (.*)", r"\1 takes no value, got \2"),
    (r"argument (\S+): (.*)", r"\1 \2"),
    (r"the following arguments are required: (.*)", r"needed, but not given: \1"),
)
"""What argparse says, and the same in the library's voice."""


class Layout(argparse.HelpFormatter):
    """Help whose examples keep their lines, and whose options tell their defaults."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns - 2, WIDEST))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = [part if "\n  " in part else wrapped(part, width) for part in text.split("\n\n")]
        return "\n\n".join(parts)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width).splitlines()

    def _get_help_string(self, action: argparse.Action) -> str | None:
        given = action.default is not False and action.default not in (None, argparse.SUPPRESS, [])
        told = given and "(default" not in (action.help or "")
        return f"{action.help} (default: %(default)s)" if told else action.help


class Parser(argparse.ArgumentParser):
    """argparse with the layout and the errors of this command line."""

    commands: Any = None  # argparse's action, whose ``choices`` are commands by name

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=Layout, allow_abbrev=False, **settings)

    def add_subparsers(self, **settings: Any) -> Any:
        """The commands below this one."""
        self.commands = super().add_subparsers(prog=self.prog, parser_class=Parser, required=True, **settings)
        return self.commands

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a word that means nothing is named before what is missing, and ``-h`` is seen anywhere."""
        words = sys.argv[1:] if args is None else list(args)
        self.check([*takewhile(lambda word: word != "--", words)])
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.refuse(unknown[0])
        return found, unknown

    def check(self, words: Sequence[str]) -> None:
        """Show the help if it is asked for; refuse words that are neither commands nor options."""
        if self.commands is not None:
            before = [*takewhile(lambda word: word.startswith("-"), words)]
            after, words = words[len(before) :], before
        if not {"-h", "--help"}.isdisjoint(words):
            self.print_help()
            raise SystemExit(0)
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                self.refuse(name)
        if self.commands is not None and "--version" not in words:
            self.check_command(after)

    def check_command(self, words: Sequence[str]) -> None:
        """Refuse a command that there is not."""
        known = [*self.commands.choices]
        if not words or words[0] not in known:
            came, near = (repr(words[0]), nearest(words[0], known)) if words else ("none", "")
            self.error(f"{self.commands.metavar} needs one of {', '.join(known)}, got {came}{near}")

    def refuse(self, word: str) -> NoReturn:
        """End with a word that means nothing here."""
        if word.startswith("-"):
            near = nearest(word, [name for name in self._option_string_actions if name.startswith("--")])
            self.error(f"an option was needed, got {word}, which there is not{near}")
        self.error(f"nothing more was needed, got {word!r}; put what has spaces or stars in quotes")

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        for pattern, words in SAID:
            message, count = re.subn(pattern, words, message, count=1)
            if count:
                break
        complain(f"{message}; see `{self.prog} --help`")
        raise SystemExit(USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message, file, end="")


def wrapped(text: str, width: int) -> str:
    """Text in lines of a width; names of options stay whole."""
    return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)


def nearest(word: str, names: Iterable[str]) -> str:
    """The names that a word is nearest to, as the end of a line; nothing where none is near."""
    near = difflib.get_close_matches(word, [*names], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def add_command(
    commands: Any, name: str, summary: str, *, usage: str, text: str, examples: str = "", page: str = ""
) -> Parser:
    """A parser for one command.

    Parameters
    ----------
    commands
        What ``add_subparsers`` returned.
    name, summary
        As the list of commands shows them.
    usage
        What follows the command's name.
    text
        What it is for and what comes out.
    examples
        A command in each line.
    page
        Of the documentation.
    """
    shown = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    more = [f"examples:\n{shown}"] if examples else []
    more += [f"More is in {page}."] if page else []
    made: Parser = commands.add_parser(
        name, help=summary, usage=f"%(prog)s {usage}", description=text.strip(), epilog="\n\n".join(more)
    )
    return made
