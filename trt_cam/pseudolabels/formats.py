"""Labelled photos as the files that detectors are trained on: COCO, YOLO, PASCAL VOC. Each streams photo by photo.

A format is a context manager that is given a folder, and yields the function that adds a photo.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from xml.sax.saxutils import escape

from trt_cam.data.problems import printable


@dataclass(frozen=True)
class Box:
    """One object.

    Attributes
    ----------
    category
        Place of its class in the list of names, from 0.
    corners : (x0, y0, x1, y1)
        Pixels of the upright photo, far edge exclusive.
    score : in [0, 1] or None
        Probability of the class; None from a model without classifier.
    mean_heat : in [0, 1]
    """

    category: int
    corners: tuple[int, int, int, int]
    score: float | None
    mean_heat: float


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and its objects; formats are given those that have one.

    Attributes
    ----------
    number
        From 1, its own whatever else is labelled.
    name
        Of its file below the folder of photos, with forward slashes.
    size : (W, H)
        (0, 0) where there is no object.
    """

    number: int
    name: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]


Add = Callable[[LabelledPhoto], None]
Format = Callable[[Path, Sequence[str], str], AbstractContextManager[Add]]


@contextmanager
def coco(folder: Path, names: Sequence[str], split: str) -> Iterator[Add]:
    """``annotations/instances_<split>.json``: categories are counted from 1; score and mean_heat beside each bbox.

    Annotations wait in a file of their own until all images are written, so that neither list is ever in memory.
    """
    (folder / "annotations").mkdir()
    count = 0
    path = folder / "annotations" / f"instances_{split}.json"
    with open(path, "w", encoding="ascii") as file, tempfile.TemporaryFile("w+", dir=folder) as waiting:
        categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        file.write(f'{{"info": {{"description": "boxes by trt_cam"}},\n"categories": {json.dumps(categories)},\n')
        file.write('"images": [')

        def add(photo: LabelledPhoto) -> None:
            nonlocal count
            width, height = photo.size
            image = {"id": photo.number, "file_name": photo.name, "width": width, "height": height}
            file.write((",\n" if count else "\n") + json.dumps(image))
            for box in photo.boxes:
                waiting.write((",\n" if count else "\n") + json.dumps(_annotation(box, photo.number, count + 1)))
                count += 1

        yield add
        file.write('\n],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write("\n]}\n")


def _annotation(box: Box, image: int, number: int) -> dict[str, object]:
    x0, y0, x1, y1 = box.corners
    bbox = [x0, y0, x1 - x0, y1 - y0]
    place = {"id": number, "image_id": image, "category_id": box.category + 1, "bbox": bbox, "area": bbox[2] * bbox[3]}
    return place | {"iscrowd": 0, "score": box.score, "mean_heat": box.mean_heat}


@contextmanager
def yolo(folder: Path, names: Sequence[str], split: str) -> Iterator[Add]:
    """``labels/<photo>.txt`` with a line ``<class> <centre x> <centre y> <width> <height>`` a box, in shares.

    ``<split>.txt`` lists the photos that have labels, since trainers take one without for one that shows nothing;
    ``data.yaml`` names the classes. A sixth number would be taken for a part of an outline, so scores are in
    ``scores.jsonl``. The photos themselves belong into ``images/``.
    """
    listed = json.dumps(f"{split}.txt")
    lines = ["# photos belong into images/ beside this file", f"train: {listed}", f"val: {listed}  # better others"]
    lines += ["names:", *(f"  {number}: {_quoted(name)}" for number, name in enumerate(names))]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with _text(folder / f"{split}.txt") as photos, _text(folder / "scores.jsonl") as scores:

        def add(photo: LabelledPhoto) -> None:
            path = (folder / "labels" / photo.name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(_shares(box, photo.size) for box in photo.boxes), encoding="ascii")
            photos.write(f"./images/{photo.name}\n")
            heat = [box.mean_heat for box in photo.boxes]
            line = {"path": photo.name, "scores": [box.score for box in photo.boxes], "mean_heat": heat}
            scores.write(json.dumps(line) + "\n")

        yield add


def _text(path: Path) -> IO[str]:
    return open(path, "w", encoding="utf-8", errors="surrogateescape")  # names of files need not be text


def _quoted(name: str) -> str:
    """In YAML: as in JSON, where surrogate pairs are not written as two escapes."""
    return json.dumps(printable(name), ensure_ascii=False)


def _shares(box: Box, size: tuple[int, int]) -> str:
    (x0, y0, x1, y1), (width, height) = box.corners, size
    numbers = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
    return f"{box.category} {' '.join(f'{number:.6f}' for number in numbers)}\n"


@contextmanager
def voc(folder: Path, names: Sequence[str], split: str) -> Iterator[Add]:
    """``Annotations/<photo>.xml`` in the tree of the photos, and their list in ``ImageSets/Main/<split>.txt``.

    As PASCAL does, pixels are counted from 1 and the far corners are pixels of the object.
    """
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    with _text(folder / "ImageSets" / "Main" / f"{split}.txt") as photos:

        def add(photo: LabelledPhoto) -> None:
            path = (folder / "Annotations" / photo.name).with_suffix(".xml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_document(photo, names), encoding="utf-8")
            photos.write(f"{PurePosixPath(photo.name).with_suffix('')}\n")

        yield add


def _document(photo: LabelledPhoto, names: Sequence[str]) -> str:
    name, (width, height) = PurePosixPath(photo.name), photo.size
    size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
    lines = [
        "<annotation>",
        f"  <folder>{_text_of(str(name.parent))}</folder>",
        f"  <filename>{_text_of(name.name)}</filename>",
        f"  <size>{size}</size>",
        "  <segmented>0</segmented>",
        *(_object(box, names[box.category]) for box in photo.boxes),
        "</annotation>",
    ]
    return "\n".join(lines) + "\n"


def _object(box: Box, name: str) -> str:
    x0, y0, x1, y1 = box.corners
    corners = zip(("xmin", "ymin", "xmax", "ymax"), (x0 + 1, y0 + 1, x1, y1), strict=True)
    bounds = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    score = "" if box.score is None else f"<score>{box.score}</score>"
    flags = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
    heat = f"<mean_heat>{box.mean_heat}</mean_heat>"
    return f"  <object><name>{_text_of(name)}</name>{flags}<bndbox>{bounds}</bndbox>{score}{heat}</object>"


def _text_of(name: str) -> str:
    """In XML, which can hold no control characters."""
    return escape(printable(name))


FORMATS: dict[str, Format] = {"coco": coco, "yolo": yolo, "voc": voc}
"""The formats that are folders of files, by name."""
