"""All parts of a run of pseudo-labels as the files that it is made for, one line in memory at a time."""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from trt_cam.pipeline import Pipeline
from trt_cam.pseudolabels.formats import FORMATS, Add, Box, LabelledPhoto
from trt_cam.pseudolabels.labelling import Forwards, Line, unpacked
from trt_cam.runs import Run, writing
from trt_cam.targets import class_label

LINES = "photos.jsonl"
KINDS = ("labelled", "without_box", "copies", "failed")


@dataclass(frozen=True)
class Keep:
    """Which boxes are labels.

    Attributes
    ----------
    min_size
        Of both sides of a box: pixels, or below 1 a share of the photo's side.
    min_score : in [0, 1]
        Of its class's probability.
    """

    min_size: float = 0.0
    min_score: float = 0.0

    def of(self, line: Line) -> Line:
        """A line without the boxes that are too small or too unsure."""
        width, height = line["width"], line["height"]
        least = (self.min_size * width, self.min_size * height) if self.min_size < 1 else (self.min_size,) * 2
        score = line["target"]["score"]
        sure = score is None or score >= self.min_score
        each = list(zip(line["boxes"], line["scores"], line["mean_heat"], strict=True))
        left = [one for one in each if sure and self.large(one[0], least)]
        columns = zip(*left, strict=True) if left else ([], [], [])
        return line | {name: list(of) for name, of in zip(("boxes", "scores", "mean_heat"), columns, strict=True)}

    def large(self, box: Sequence[int], least: tuple[float, float]) -> bool:
        """Whether both sides are long enough."""
        return box[2] - box[0] >= least[0] and box[3] - box[1] >= least[1]


class Merge:
    """The lines of a finished run, in order.

    Attributes
    ----------
    field
        "label" or "target": which class of a line is that of its boxes.
    names
        Of those classes, by index; None where they have none.
    """

    def __init__(self, run: Run, photos: Forwards, line: Pipeline, keep: Keep) -> None:
        self.run, self.parts, self.data, self.keep = run, photos.parts, photos.data, keep
        self.field = "target" if photos.targets is None else "label"
        predicted = line.names if line.explain.classes else ("object",)
        self.names = predicted if photos.targets is None else self.data.classes

    def lines(self) -> Iterator[Line]:
        """All lines as they were kept, but for boxes that are no labels."""
        for part in range(self.parts):
            for line in unpacked(self.run.read(part)):
                yield line if "error" in line else self.keep.of(line)

    def scan(self) -> tuple[npt.NDArray[np.int64], list[int]]:
        """What must be known before the first line is written.

        Returns
        -------
        (N,) int64, and a list of classes
            The first line with the content of each, by 128 bits of its hash, and the classes that have a box, or are
            those of folders.
        """
        contents, classes = array("Q"), set[int]()
        if self.field == "label" and self.names is not None:
            classes.update(range(len(self.names)))
        for line in self.lines():
            contents.frombytes(bytes.fromhex(line.get("sha256", "")[:32]) or bytes(16))
            if line.get("boxes"):
                classes.add(self.category(line))
        return firsts(np.frombuffer(contents, dtype=np.uint64).reshape(-1, 2)), sorted(classes)

    def category(self, line: Line) -> int:
        """Index of the class of a line's boxes; 0 where none is known."""
        return int(line[self.field]["index"] or 0)

    def write(self, formats: Sequence[str]) -> dict[str, Any]:
        """All files, each there whole or not at all; returns what is in them."""
        first, classes = self.scan()
        names = titles(classes, self.names)
        counts, boxes = Counter[str](), Counter(dict.fromkeys(names, 0))
        with self.files(formats, names) as (record, adds):
            for photo, lines in self.photos(first, {one: place for place, one in enumerate(classes)}):
                record.writelines(json.dumps(line) + "\n" for line in lines)
                counts.update(map(kind, lines))
                boxes.update(names[box.category] for box in photo.boxes)
                for add in adds if photo.boxes else ():
                    add(photo)
        found = {"photos": counts.total()} | {name: counts[name] for name in KINDS}
        return found | {"boxes": boxes.total(), "classes": dict(boxes)}

    @contextmanager
    def files(self, formats: Sequence[str], names: Sequence[str]) -> Iterator[tuple[IO[str], list[Add]]]:
        """The file of all lines, and what adds a photo to each format."""
        folder, split = self.run.folder, "train" if self.data.split == "all" else self.data.split
        with writing(folder), ExitStack() as stack:
            record = stack.enter_context(whole_file(folder / LINES))
            folders = [stack.enter_context(whole_folder(folder / name)) for name in formats]
            pairs = zip(formats, folders, strict=True)
            yield record, [stack.enter_context(FORMATS[name](there, names, split)) for name, there in pairs]

    def photos(
        self, first: npt.NDArray[np.int64], places: Mapping[int, int]
    ) -> Iterator[tuple[LabelledPhoto, list[Line]]]:
        """Each photo with the boxes that are its labels, and its lines: several where it has several classes."""
        lines = ((index, self.named(line, int(first[index]))) for index, line in enumerate(self.lines()))
        for path, group in groupby(lines, key=lambda pair: pair[1]["path"]):
            pairs = list(group)
            with_boxes = [line for _, line in pairs if line.get("boxes")]
            by_class = {self.category(line): line for line in with_boxes}  # the predicted one would be there twice
            boxes = tuple(box for one, line in by_class.items() for box in boxes_of(line, places[one]))
            size = (with_boxes[0]["width"], with_boxes[0]["height"]) if with_boxes else (0, 0)
            yield LabelledPhoto(pairs[0][0] + 1, path, size, boxes), [line for _, line in pairs]

    def named(self, line: Line, first: int) -> Line:
        """A line, or what stands for it if another photo before it has the same content."""
        if "error" in line or (original := self.data.photo_name(first)) == line["path"]:
            return line
        return {name: line[name] for name in ("path", "label", "sha256") if name in line} | {"copy_of": original}


def kind(line: Line) -> str:
    """What became of a photo, one of `KINDS`."""
    if "error" in line or "copy_of" in line:
        return "failed" if "error" in line else "copies"
    return "labelled" if line["boxes"] else "without_box"


def boxes_of(line: Line, place: int) -> list[Box]:
    """The boxes of a line, all of one class."""
    known = line["target"]["score"] is not None
    scores = line["scores"] if known else [None] * len(line["boxes"])
    rows = zip(line["boxes"], scores, line["mean_heat"], strict=True)
    return [Box(place, tuple(corners), score, heat) for corners, score, heat in rows]


def titles(classes: Sequence[int], names: Sequence[str] | None) -> list[str]:
    """A name for each class, none twice: ImageNet has two cranes."""
    found = [class_label(one, names) or f"class {one}" for one in classes]
    counts = Counter(found)
    return [name if counts[name] == 1 else f"{name} ({one})" for one, name in zip(classes, found, strict=True)]


def firsts(contents: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each row (N, 2) the first that is equal to it, (N,)."""
    order = np.lexsort((contents[:, 1], contents[:, 0]))  # stable: of equal rows the first comes first
    changes = np.any(contents[order[1:]] != contents[order[:-1]], axis=1)
    starts = np.concatenate([[True], changes])
    found = np.empty(len(order), dtype=np.int64)
    found[order] = order[starts][np.cumsum(starts) - 1]
    return found


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A file that takes its place when it is complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "w", encoding="ascii") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of the one before it when it is complete."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        unfinished.mkdir()
        yield unfinished
        shutil.rmtree(path, ignore_errors=True)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
