"""One batch of pseudo-labels: read its photos, hash them, localize them, and keep a line of JSON for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError
from trt_cam.pipeline import Pipeline, Ready
from trt_cam.results import Failure, Localization
from trt_cam.targets import class_label

FORWARDS = 16  # in a part of a run: a file for each would be a million files for eight million photos
Line = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """A photo of the data set: its place there, what the model gets, and the hash of its file."""

    index: int
    ready: Ready
    content: str = ""


class Forwards(torch.utils.data.Dataset[list[Read]]):
    """Photos of numbered forwards, read by worker processes; `FORWARDS` of them are a numbered part of the run.

    Parameters
    ----------
    line
        Its choices say how photos are read; its model is left behind.
    targets : (N,) int64 or None
        The class to look for in each photo, -1 where it has none; None for the predicted one.
    """

    def __init__(self, data: DataSet, line: Pipeline, targets: npt.NDArray[np.int64] | None, batch_size: int) -> None:
        self.data, self.labels, self.targets, self.batch_size = data, data.labels(), targets, batch_size
        self.asks = bool(line.explain.classes)
        self.line = replace(line, model=torch.nn.Identity(), explain=None)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-len(self) // FORWARDS)

    def count(self, parts: Sequence[int]) -> int:
        """Photos in numbered parts."""
        whole = FORWARDS * self.batch_size
        return sum(min(whole, len(self.data) - part * whole) for part in parts)

    def of(self, parts: Sequence[int]) -> npt.NDArray[np.int64]:
        """Numbers of the forwards of numbered parts, one after the other."""
        numbers = np.array(parts, dtype=np.int64)[:, None] * FORWARDS + np.arange(FORWARDS)  # (parts, FORWARDS)
        return numbers[numbers < len(self)]

    def __getitem__(self, number: int) -> list[Read]:
        start = int(number) * self.batch_size
        return [self.read(index) for index in range(start, min(start + self.batch_size, len(self.data)))]

    def read(self, index: int) -> Read:
        """One photo; what is wrong with it is said, not raised."""
        target = None if self.targets is None else int(self.targets[index])
        try:
            path = self.data[index].path
            if target == -1:
                raise DatasetError(f"{path} has no class to look for; give it one, or target='predicted'")
            ready = self.line.read(path, target if self.asks else None, strict=False)
            return Read(index, ready, "" if ready.error else hash_of(path))
        except (DatasetError, OSError) as error:
            return Read(index, Ready(None, None, target, None, None, error=str(error)))

    def lines(self, read: list[Read], line: Pipeline) -> list[Line]:
        """What is kept of each photo of one forward.

        `Localization.to_json` with the path below the folder of photos, ``mean_heat`` of each box, ``sha256`` of the
        file, and ``label``, the index and name of the class it lies under, if any. A photo that failed has ``error``.
        """
        results = line.finish([one.ready for one in read], strict=False)
        return [self.kept(one, found) for one, found in zip(read, results, strict=True)]

    def kept(self, one: Read, found: Localization | Failure) -> Line:
        """The same of one photo."""
        line = found.to_json() | {"path": self.data.photo_name(one.index)}
        label = int(self.labels[one.index])
        if label >= 0:
            line["label"] = {"index": label, "name": class_label(label, self.data.classes)}
        if isinstance(found, Localization):
            line["mean_heat"] = [round(float(heat), 6) for heat in found.mean_heat]
            line["sha256"] = one.content
        return line


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packed(lines: list[Line]) -> dict[str, npt.NDArray[np.uint8]]:
    """Lines as a part of a run keeps them."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return {"lines": np.frombuffer(text.encode("ascii"), dtype=np.uint8)}


def unpacked(arrays: Mapping[str, npt.NDArray[np.uint8]]) -> list[Line]:
    """The lines that `packed` packed."""
    return [json.loads(line) for line in arrays["lines"].tobytes().splitlines()]
