"""What the values of options may be; each kind says itself what it needs."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from trt_cam.cli.parser import nearest


@dataclass(frozen=True)
class Number:
    """A number within bounds; NaN is within none.

    Attributes
    ----------
    kind
        int or float.
    needed
        The bounds in words.
    fits
        Whether a number is within them.
    """

    kind: type[int] | type[float]
    needed: str
    fits: Callable[[Any], bool]

    def __call__(self, text: str) -> Any:
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not self.fits(value):
            raise ArgumentTypeError(f"needs {self.needed}, got {text!r}")
        return value


SHARE = Number(float, "a share in [0, 1), such as 0.2", lambda value: 0 <= value < 1)
KEPT = Number(float, "a share in (0, 1], such as 0.65", lambda value: 0 < value <= 1)
CHANCE = Number(float, "a number in [0, 1]", lambda value: 0 <= value <= 1)
INSIDE = Number(float, "a number above 0 and below 1", lambda value: 0 < value < 1)
POSITIVE = Number(float, "a number above 0", lambda value: 0 < value < inf)
LEAST_0 = Number(float, "a number of at least 0", lambda value: 0 <= value < inf)
COUNT = Number(int, "a whole number of at least 1", lambda value: value >= 1)
WHOLE = Number(int, "a whole number of at least 0", lambda value: value >= 0)
PIXELS = Number(int, "a whole number of pixels from 1 to 8192", lambda value: 1 <= value <= 8192)


@dataclass(frozen=True)
class Or:
    """A few words, or else what another kind takes."""

    words: tuple[str, ...]
    other: Number

    def __call__(self, text: str) -> Any:
        if text in self.words:
            return text
        try:
            return self.other(text)
        except ArgumentTypeError:
            raise ArgumentTypeError(f"needs {', '.join(self.words)} or {self.other.needed}, got {text!r}") from None


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: Sequence[str]

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ArgumentTypeError(f"needs one of {', '.join(self.words)}, got {text!r}{nearest(text, self.words)}")
        return text


@dataclass(frozen=True)
class SomeOf:
    """Some of a few words, separated by commas."""

    words: Sequence[str]

    def __call__(self, text: str) -> list[str]:
        found = names(text)
        for name in found:
            OneOf(self.words)(name)
        return found


def names(text: str) -> list[str]:
    """Names separated by commas, at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ArgumentTypeError(f"needs a name, or several separated by commas, got {text!r}")
    return found


def filled(text: str) -> str:
    """A text that is not empty, as an unset variable of the shell would be."""
    if not text.strip():
        raise ArgumentTypeError(f"needs a value, got {text!r}")
    return text


def photo(text: str) -> str:
    """A path, a folder or a pattern."""
    if text.startswith(("http://", "https://")):
        raise ArgumentTypeError(f"needs a file, got the address {text}; download the photo first")
    return filled(text)


def pair(text: str) -> str:
    """``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ArgumentTypeError(f"needs NAME=VALUE, got {text!r}")
    return text


def pair_of_method(text: str) -> str:
    """``METHOD.NAME=VALUE``."""
    method, dot, rest = text.partition(".")
    if not (method and dot and "=" in rest and pair(rest)):
        raise ArgumentTypeError(f"needs METHOD.NAME=VALUE, got {text!r}")
    return text
