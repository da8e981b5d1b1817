"""Lists, XML and JSON as text with line numbers: nothing here is executed, expanded or unpickled."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from trt_cam.data.problems import Folder, Report, cannot, quoted

_WHOLE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


def read_lines(folder: Folder, name: str, report: Report) -> Iterator[tuple[int, str]]:
    """The lines of a text file, numbered from 1; blank ones are passed over.

    A byte order mark, ``\\r`` and blanks around a line are taken off, and the last line counts without a line end too.
    Bytes that are no UTF-8 stay what they are, so that they still name a file.

    Parameters
    ----------
    folder, name
        Where the file lies.
    report
        Told why the file cannot be read.
    """
    path = folder.at(name)
    if why := folder.why_not(name):
        report(path, None, why)
        return
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip(" \t\r\n")
                if "\0" in text:
                    report(path, number, "has NUL characters: it is no UTF-8 text; save it as UTF-8")
                    return
                if text:
                    yield number, text
    except OSError as error:
        report(path, None, cannot(error))


def read_bytes(folder: Folder, name: str, report: Report) -> bytes | None:
    """All of a file; None after a report."""
    path = folder.at(name)
    if why := folder.why_not(name):
        report(path, None, why)
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        report(path, None, cannot(error))
        return None


def first_words(folder: Folder, name: str, report: Report) -> dict[str, int]:
    """The first word of each line of a text file, and the line; a word that was there before is reported."""
    found: dict[str, int] = {}
    for line, text in read_lines(folder, name, report):
        word = text.split()[0]
        if word in found:
            report(folder.at(name), line, f"{word} stands in line {found[word]} already")
        found.setdefault(word, line)
    return found


def whole(text: str) -> int | None:
    """A whole number of at most nine digits; None for anything else."""
    return int(text) if _WHOLE.fullmatch(text) else None


def number(text: str) -> float | None:
    """A finite number; None for anything else."""
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def numbers(texts: list[str]) -> list[float] | None:
    """Each as a finite number; None if one is not."""
    found = [value for text in texts if (value := number(text)) is not None]
    return found if len(found) == len(texts) else None


@dataclass
class Element:
    """An XML element: its name, the line where it begins, its text and its children."""

    name: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Children of that name."""
        return [child for child in self.children if child.name == name]

    def get(self, *names: str) -> Element | None:
        """The first child of the first name, its first child of the second, and so on; None if there is none."""
        found: Element | None = self
        for name in names:
            found = next(iter(found.all(name)), None) if found is not None else None
        return found

    def value(self, *names: str) -> str:
        """The text of `get`; empty if there is none."""
        found = self.get(*names)
        return found.text.strip() if found is not None else ""


class _Refused(Exception):
    pass


def read_xml(folder: Folder, name: str, report: Report) -> Element | None:
    """The root of an XML file; None after a report. A document type, and with it every entity, is refused."""
    content, path = read_bytes(folder, name, report), folder.at(name)
    if content is None:
        return None
    top = Element("", 0)
    stack = [top]
    parser = expat.ParserCreate()

    def begin(name: str, attributes: dict[str, str]) -> None:
        stack.append(Element(name, parser.CurrentLineNumber))
        stack[-2].children.append(stack[-1])

    def end(name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_: Any) -> None:
        raise _Refused

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except _Refused:
        report(path, parser.CurrentLineNumber, "has a document type or entities, which are not read; take them out")
    except expat.ExpatError as error:
        report(path, error.lineno, f"is no whole XML ({expat.ErrorString(error.code)})")
    except (LookupError, ValueError) as error:
        report(path, 1, f"is in an encoding that is not read ({error}); save it as UTF-8")
    else:
        return top.children[0]
    return None


def read_json(folder: Folder, name: str, report: Report) -> Any:
    """What a JSON file holds; None after a report."""
    content, path = read_bytes(folder, name, report), folder.at(name)
    try:
        return None if content is None else json.loads(content)
    except json.JSONDecodeError as error:
        report(path, error.lineno, f"is no whole JSON ({error.msg})")
    except (ValueError, RecursionError) as error:  # no text, or nested without end
        report(path, None, f"is no JSON that can be read ({quoted(str(error))})")
    return None
