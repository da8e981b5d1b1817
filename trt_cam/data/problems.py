"""What is wrong with a data set, and where: file, line, one sentence; and the names that may be opened at all."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trt_cam.errors import DatasetError

_UNSAFE = re.compile(r"^\s*$|\0|^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")
_ELSEWHERE = "where photos or masks lie elsewhere, give photos_root or masks_root"
_LONGEST = 100  # characters of a name or line that a message shows


@dataclass(frozen=True)
class Problem:
    """One thing that is missing or broken.

    Attributes
    ----------
    file
        The list, annotation, folder or picture it was found in.
    line
        Counted from 1; None where the file has no lines or is itself the problem.
    message
        What was needed and what came.
    """

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return printable(f"{place}: {self.message}")


class Report(Protocol):
    """Called by a reader for each problem; with ``fatal=False`` for one that the data can be used in spite of."""

    def __call__(self, file: Path, line: int | None, message: str, *, fatal: bool = True) -> None: ...


def stop(file: Path, line: int | None, message: str, *, fatal: bool = True) -> None:
    """The report of a strict reader: the first fatal problem is an error."""
    if fatal:
        raise DatasetError(str(Problem(file, line, message)))


def ignore(file: Path, line: int | None, message: str, *, fatal: bool = True) -> None:
    """The report of who only looks around."""


def collect(add: Callable[[Problem], object]) -> Report:
    """The report of a check: every problem is handed on, and reading goes on."""

    def report(file: Path, line: int | None, message: str, *, fatal: bool = True) -> None:
        add(Problem(file, line, message))

    return report


def printable(text: str) -> str:
    """The text with control characters, line ends and bytes of no encoding written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """A piece of a file for a message: in quotes, and not too long."""
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def inside(root: Path, name: str, file: Path | None = None, line: int | None = None) -> Path:
    """The path of a name below a folder.

    Parameters
    ----------
    root
        The folder; it may itself be a link.
    name
        With forward slashes, as lists hold it. The file need not exist.
    file, line
        Where the name was read, for the message.

    Raises
    ------
    DatasetError
        The name is absolute, empty, has ``..`` or NUL, or a link on its way leads out of the folder.
    """
    if reason := unsafe(name) or leads_out(root, name):
        raise DatasetError(str(Problem(file or root, line, reason)))
    return root / name


@dataclass(frozen=True)
class Folder:
    """A folder of a data set: ``below`` of ``root``, and no file outside ``root`` is opened."""

    root: Path
    below: str = ""

    def at(self, name: str) -> Path:
        """The path of a name, for messages; nothing is checked."""
        return self.root / self.below / name

    def path(self, name: str, file: Path | None = None, line: int | None = None) -> Path:
        """The path of a name, checked by `inside`."""
        return inside(self.root, self._whole(name), file, line)

    def leads_out(self, name: str) -> str:
        """Why a name may not be opened because of links; empty if it may."""
        return leads_out(self.root, self._whole(name))

    def why_not(self, name: str) -> str:
        """Why a name is no file that may be opened; empty if it is one."""
        if reason := unsafe(name) or self.leads_out(name):
            return reason
        try:
            mode = os.stat(self.at(name)).st_mode
        except OSError as error:
            return cannot(error)
        return "" if stat.S_ISREG(mode) else "is no file"

    def _whole(self, name: str) -> str:
        return f"{self.below}/{name}" if self.below and not unsafe(name) else name


def cannot(error: OSError) -> str:
    """Why a file could not be read."""
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"


def unsafe(name: str) -> str:
    """Why a name may not be opened, by its letters alone; empty if it may."""
    if not name.isascii() and not _encodable(name):
        return f"needs the name of a file, but {quoted(name)} has letters that none can have"
    suspect = ".." in name or "\0" in name or name[1:2] == ":" or name[:1] in "/\\ \t"  # "" is in it too
    if not suspect or not _UNSAFE.search(name):  # the pattern alone would cost a second for a million names
        return ""
    if not name.strip():
        return "needs the name of a file, got an empty one"
    if "\0" in name:
        kind = "has a NUL character"
    elif name[0] in "/\\":
        kind = "is absolute"
    else:
        kind = "has a drive letter" if name[1:2] == ":" else "has .. in it"
    return f"needs a name below the data set's folder, but {quoted(name)} {kind}"


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def leads_out(root: Path, name: str) -> str:
    """Why a name may not be opened because of links on the way; empty if it may."""
    here, real = os.fspath(root), ""
    for part in name.replace(os.sep, "/").split("/"):
        here = os.path.join(here, part)
        if os.path.islink(here):
            real = real or os.path.join(os.path.realpath(root), "")
            target = os.path.realpath(here)
            if not os.path.join(target, "").startswith(real):
                return f"{quoted(name)} is a link out of {root} to {target}; {_ELSEWHERE}"
    return ""
