"""What the commands print, and where they may write: the only file that prints."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from trt_cam.errors import InputError, OutputError

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there, and see that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise OutputError(f"cannot write to {folder} ({error.strerror or error}); give another --out") from error


def check_folder(folder: Path) -> None:
    """Refuse a file in place of a folder."""
    if folder.is_file():
        raise InputError(f"--out needs a folder, got the file {folder}; give another name")


def check_picture(path: Path) -> None:
    """Refuse, before the work, a file that no picture can be written to."""
    from PIL import Image

    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    if path.suffix.lower() not in known:
        raise InputError(f"--out needs a picture's file, got {path}; end it with .png or .jpg")
    if path.is_dir():
        raise InputError(f"--out needs a picture's file, got the folder {path}; name a file in it")


def progress(results: Iterable[Any], count: int) -> Iterator[Any]:
    """The same results, counted on stderr if that is a terminal, they are many, and their lines go elsewhere."""
    shown = count > 1 and on_terminal(sys.stderr) and not on_terminal(sys.stdout)
    for done, result in enumerate(results, start=1):
        if shown:
            say(f"\r{done}/{count} photos", sys.stderr, end="")
        yield result
    if shown:
        say("\r" + " " * 40 + "\r", sys.stderr, end="")


def on_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is shown to somebody; Python has None for one that was closed."""
    return stream is not None and stream.isatty()


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print at once, escaping what the terminal cannot show."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=True)


def complain(text: str, kind: str = "error: ") -> None:
    """One line on stderr, if there is one."""
    if sys.stderr is not None:
        say(f"trt-cam: {kind}{' '.join(text.split())}", sys.stderr)


class Counter:
    """Photos done, or whatever is counted, their rate and the time left, on one line of the terminal."""

    def __init__(self, counted: str = "photos") -> None:
        self.counted, self.start, self.first = counted, time.monotonic(), -1

    def __call__(self, done: int, count: int, failed: int) -> None:
        self.first = done if self.first < 0 else self.first
        rate = (done - self.first) / max(time.monotonic() - self.start, 1e-9)
        left = f", {duration((count - done) / rate)} left" if rate > 0 else ""
        failures = f", {failed} failed" if failed else ""
        end = "\n" if done >= count else ""
        say(f"\r{done}/{count} {self.counted}, {rate:.1f}/s{left}{failures}    ", sys.stderr, end=end)


def duration(seconds: float) -> str:
    """As 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
