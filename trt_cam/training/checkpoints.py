"""The state of a training that can be cut short: numbered files with checksums; the newest whole one counts."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops._checks import check_count
from trt_cam.runs import write_whole, writing

_PLAIN = (str, bytes, int, float, bool, type(None))
_OURS = re.compile(r"(\d{8,})\.pt(\.sha256)?")
_UNFINISHED = re.compile(rf"\.{_OURS.pattern}\.\d+")  # of a process that was killed while it wrote


class Checkpoints:
    """Files such as ``00000120.pt``, read by ``torch.load``, each with a ``.sha256`` beside it for ``sha256sum -c``.

    Parameters
    ----------
    folder
        Made with the first file.
    keep
        How many of the newest are kept.
    say
        Told of each that is damaged.
    """

    def __init__(self, folder: Path, *, keep: int = 2, say: Callable[[str], None]) -> None:
        check_count(keep, "keep", 1)
        self.folder, self.keep, self.say = folder, keep, say

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a state, then remove what it makes superfluous: older ones over ``keep``, and any of later steps.

        Parameters
        ----------
        step
            Its number; a file of the same number is replaced.
        state
            Tensors, numbers and texts in dicts, lists and tuples.

        Raises
        ------
        InputError
            The state holds something that could not be read back.
        OutputError
            It cannot be written; the files before it stay.
        """
        _check_plain(dict(state), "state")
        path = self._path(step)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        sums: list[str] = []
        write_whole(path, lambda file: sums.append(_write(state, file)))
        line = f"{sums[0]}  {path.name}\n"
        write_whole(_sum(path), lambda file: file.write(line.encode()))
        self._tidy(step)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The step and state of the newest that is whole, on the CPU; None where there is none."""
        steps = self._steps()
        for step, before in zip(steps, [*steps[1:], None], strict=False):
            try:
                return step, _read(self._path(step))
            except MemoryError:
                raise
            except Exception as error:  # torch raises nearly anything of a damaged file
                then = "there is none before it" if before is None else f"the one before, of step {before}, is taken"
                reason = " ".join(str(error).split())[:200]
                self.say(f"{self._path(step)} cannot be used ({reason}); {then}")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:08d}.pt"

    def _steps(self) -> list[int]:
        """Of all files, the newest first."""
        return sorted({int(match[1]) for match in map(_OURS.fullmatch, self._names()) if match}, reverse=True)

    def _names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []

    def _tidy(self, step: int) -> None:
        kept = [self._path(one) for one in self._steps() if one <= step][: self.keep]
        names = {path.name for path in (*kept, *map(_sum, kept))}
        for name in self._names():
            if name not in names and (_OURS.fullmatch(name) or _UNFINISHED.fullmatch(name)):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()


def _sum(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _read(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != _sum(path).read_text(encoding="ascii")[: len(found)]:
            raise ValueError("its checksum differs")
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


class _Hashed:
    """A file that is hashed as it is written; torch hides why it could not be."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sum = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sum.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def _write(state: Mapping[str, Any], file: IO[bytes]) -> str:
    """Write a state and return the checksum of what was written."""
    hashed = _Hashed(file)
    try:
        torch.save(dict(state), hashed)  # type: ignore[arg-type]
    except RuntimeError:
        if hashed.error is not None:
            raise hashed.error from None
        raise
    return hashed.sum.hexdigest()


def _check_plain(value: Any, name: str) -> None:
    """Refuse what ``torch.load(weights_only=True)`` would: found out at once, not when the state is needed."""
    if type(value) in (dict, OrderedDict):
        for key, one in value.items():
            _check_plain(key, f"a key of {name}")
            _check_plain(one, f"{name}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, one in enumerate(value):
            _check_plain(one, f"{name}[{number}]")
    elif not isinstance(value, Tensor) and type(value) not in _PLAIN:
        raise InputError(
            f"a checkpoint holds tensors, numbers and texts in dicts, lists and tuples, got {type(value).__name__} as "
            f"{name}; turn it into one of these"
        )
