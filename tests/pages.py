"""Runs the blocks of a page: Python in one namespace, commands by the program's own parser, from top to bottom.

A page runs in a fresh folder with the stand-ins of ``stand_ins.py``. The words

    *Needs 8 GPUs: the tests check its syntax only.*

as the paragraph directly above a block say, to the reader and to the tests, that this one is not run; under the page's
title they stand for all its blocks. There is no other way to be left out: blocks in a language that is neither run nor
named in ``SHOWN``, commands that nobody runs or parses, fences that do not end and such words elsewhere are errors.
A block of ``py`` quotes the package's source, line by line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATED = {"command-line.md", "gallery.md"}  # written when the site is built
SHOWN = {"text", "toml", "json", "yaml", "xml", "html", "bibtex", "diff", "mermaid"}
NEEDS = re.compile(r"\*Needs ([^*:]+): the tests check its syntax only\.\*")
FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})([^`]*)$")


class PageError(AssertionError):
    """What is wrong with a page, and in which line."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    line : of its fence, from 1
    section : the heading above it
    needs : why it is not run here, or nothing
    """

    page: str
    line: int
    language: str
    code: str
    section: str
    needs: str

    def error(self, why: str, line: int | None = None) -> PageError:
        return PageError(f"{self.page}:{self.line if line is None else line}: {why}")


def all_pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and docs/*.md, without what is generated."""
    named = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
    return named + sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in GENERATED)


def blocks_of(text: str, page: str) -> list[Block]:
    """All blocks of a page; an error where one could be overlooked."""
    lines, found, used = text.splitlines(), list[Block](), 0
    for_all = NEEDS.fullmatch(paragraph(lines, 0, downwards=True))
    place, section = 0, ""
    while place < len(lines):
        opened = FENCE.match(lines[place])
        if opened is None:
            section = lines[place].lstrip("# ").strip() if re.match(r"#+ ", lines[place]) else section
            place += 1
            continue
        end = closing(lines, place, opened, page)
        own = NEEDS.fullmatch(paragraph(lines, place))
        used += own is not None and opened[3].strip() in ("python", "sh")
        needs = (own or for_all or [None, ""])[1]
        code = "\n".join(line.removeprefix(opened[1]) for line in lines[place + 1 : end])
        block = Block(page, place + 1, opened[3].strip(), code + "\n", section, needs)
        check_language(block)
        found.append(block)
        place = end + 1
    check_words(text, page, used + (for_all is not None))
    return found


def paragraph(lines: list[str], place: int, *, downwards: bool = False) -> str:
    """The paragraph directly above a line, or the first one under the page's title."""
    if not downwards:
        return re.split(r"\n\s*\n", "\n".join(lines[:place]).strip())[-1]
    parts = re.split(r"\n\s*\n", "\n".join(lines).strip(), maxsplit=2)
    return parts[1].strip() if len(parts) > 1 and parts[0].startswith("# ") else ""


def closing(lines: list[str], start: int, opened: re.Match[str], page: str) -> int:
    """The line of the fence that ends a block."""
    for place in range(start + 1, len(lines)):
        fence = FENCE.match(lines[place])
        if fence is None or fence[2][0] != opened[2][0] or len(fence[2]) < len(opened[2]):
            continue
        if fence[3].strip():
            raise PageError(f"{page}:{place + 1}: a block begins inside that of line {start + 1}, which has no end")
        return place
    raise PageError(f"{page}:{start + 1}: the block that begins here has no end")


def check_language(block: Block) -> None:
    """Each block says what it is; only Python and commands are run, and only under one name each."""
    language = block.language
    if language in ("python", "sh") or language in SHOWN:
        return
    if re.match(r"\{(?!code)[\w-]+\}", language):  # a directive of the site: a table of contents, an include
        return
    if language == "py":
        known = source_lines()
        for number, line in enumerate(block.code.splitlines(), start=1):
            if line.strip() not in known:
                raise block.error(f"{line.strip()!r} is no line of trt_cam/", block.line + number)
        return
    raise block.error(
        f"nobody runs or knows ```{block.language}: say python or sh, or one of {', '.join(sorted(SHOWN))}"
    )


@functools.cache
def source_lines() -> frozenset[str]:
    """Every line of the package, without its indentation; "..." and "" stand for what a quotation leaves out."""
    files = (ROOT / "trt_cam").rglob("*.py")
    lines = (line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines())
    return frozenset(lines) | {"...", ""}


def check_words(text: str, page: str, used: int) -> None:
    """Words that excuse a block stand where they work, in the form that works."""
    said = [match for match in re.finditer(r"^\*?Needs .*$", text, re.MULTILINE) if "syntax" in match[0]]
    if len(said) > used:
        raise PageError(
            f"{page}: {len(said)} paragraphs say that a block is not run, {used} of them work: each is of the form "
            "*Needs 8 GPUs: the tests check its syntax only.* directly above its block"
        )


def commands(code: str) -> Iterator[tuple[int, str]]:
    """Lines of a block of commands with their numbers in it, from 1; continued ones are joined."""
    whole, first = "", 0
    for number, line in enumerate(code.splitlines(), start=1):
        first = first or number
        if line.endswith("\\"):
            whole += line[:-1]
            continue
        if (whole + line).strip() and not (whole + line).lstrip().startswith("#"):
            yield first, whole + line
        whole, first = "", 0
