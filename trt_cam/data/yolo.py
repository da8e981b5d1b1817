"""YOLO's text files, a label file for each photo, as Ultralytics and Roboflow lay them out."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from trt_cam.data.lists import numbers, read_bytes, read_lines, whole
from trt_cam.data.objects import add_objects
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Place, Table
from trt_cam.data.walk import files_below, pictures, scan

SPLITS = ("train", "val", "valid", "test")
_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
_EDGE = 0.01  # of a side: rounded numbers reach over the edge by less


class Yolo(DataSet):
    """``images/<split>`` and ``labels/<split>``, or ``<split>/images`` and ``<split>/labels``, or no splits.

    A line of a label file is ``<class> <centre x> <centre y> <width> <height>`` as shares of the photo, so boxes are
    shares too, and ``size`` is (1, 1). A sample is a photo and one class that it shows; its id is ``<photo>#<class>``,
    or ``<photo>`` for one without a label file or with an empty one. Names are those of ``data.yaml`` (or the only
    YAML file there), ``classes.txt`` or ``obj.names``; the paths in ``data.yaml`` are not followed.
    """

    kind = "yolo"
    needs = "images/ and labels/, with train, val or test below or above them, and data.yaml or classes.txt"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        super().__init__(root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The splits that have labels, else the whole."""
        found = tuple(split for split in SPLITS if _labels(root, split))
        return found or (("all",) if (root / "labels").is_dir() and (root / "images").is_dir() else ())

    def find_photos(self) -> Folder:
        """The ``images`` of the split."""
        return Folder(self.root, _swap(self._below, "labels", "images"))

    @property
    def _below(self) -> str:
        return "labels" if self.split == "all" else _labels(self.root, self.split)

    def read(self, table: Table, report: Report) -> None:
        """Every picture, and the label file of its name."""
        table.source = self.photos.at("")
        for name, (file, line) in _class_names(Folder(self.root), report):
            if name in table.classes:
                said = f"class {len(table.classes)} {name} has the name of class {table.classes.index(name)}"
                report(file or table.source, line, said, fatal=False)
            table.add_class(name, (file, line))
        labels = Folder(self.root, self._below)
        known = bool(table.classes)  # else every line would be of an unknown class
        there = set(files_below(labels, "", ignore, _is_label)) if known else set()
        taken: set[str] = set()
        for photo in pictures(self.photos, "", report):
            name = str(PurePosixPath(photo).with_suffix(".txt"))
            objects = _read_labels(labels, name, table, report) if name in there else []
            taken.add(name)
            add_objects(table, photo, (labels.at(name) if objects else None, None), objects, (1, 1))
        for name in sorted(there - taken):
            report(labels.at(name), None, f"has no photo in {self.photos.at('')}", fatal=False)


def _read_labels(labels: Folder, name: str, table: Table, report: Report) -> list[tuple[int, tuple[float, ...], Place]]:
    found: list[tuple[int, tuple[float, ...], Place]] = []
    file = labels.at(name)
    for line, text in read_lines(labels, name, report):
        first, *rest = text.split()
        label, values = whole(first), numbers(rest)
        if label is None or values is None or len(values) != 4:
            report(file, line, f"needs <class> <centre x> <centre y> <width> <height>, got {quoted(text)}")
            continue
        x, y, width, height = values
        corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if not 0 <= label < len(table.classes):
            report(file, line, f"unknown class {label}: there are {len(table.classes)} names")
        elif min(corners) < -_EDGE or max(corners) > 1 + _EDGE:
            report(file, line, f"needs a box within the photo, as shares of it, got {quoted(text)}")
        else:
            found.append((label, corners, (file, line)))
    return found


def _labels(root: Path, split: str) -> str:
    """Where the label files of a split lie; empty if nowhere."""
    for name in (f"labels/{split}", f"{split}/labels"):
        if (root / name).is_dir() and (root / _swap(name, "labels", "images")).is_dir():
            return name
    return ""


def _swap(name: str, old: str, new: str) -> str:
    return "/".join(new if part == old else part for part in name.split("/"))


def _is_label(name: str) -> bool:
    return name.endswith(".txt") and name != "classes.txt"


def _class_names(folder: Folder, report: Report) -> list[tuple[str, Place]]:
    """Names by label, each with its place."""
    yamls = [file for file in scan(folder, "", report)[1] if file.endswith((".yaml", ".yml"))]
    chosen = "data.yaml" if "data.yaml" in yamls else yamls[0] if len(yamls) == 1 else ""
    if chosen:
        return [(name, (folder.at(chosen), None)) for name in _yaml_names(folder, chosen, report)]
    for file in _NAMES:
        if folder.at(file).is_file():
            return [(name, (folder.at(file), line)) for line, name in read_lines(folder, file, report)]
    report(folder.at("data.yaml"), None, f"is missing, and so are {', '.join(_NAMES)}: the classes have no names")
    return []


def _yaml_names(folder: Folder, file: str, report: Report) -> list[str]:
    import yaml

    text, path = read_bytes(folder, file, report), folder.at(file)
    if text is None:
        return []
    try:
        # A name for a part may stand for it many times over, and a few lines of them for all memory.
        events = yaml.parse(text, yaml.SafeLoader)
        alias = next((event for event in events if isinstance(event, yaml.AliasEvent)), None)
        content: Any = yaml.safe_load(text) if alias is None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        report(path, mark.line + 1 if mark else None, f"is no whole YAML ({quoted(str(error))})")
        return []
    if alias is not None:
        report(path, alias.start_mark.line + 1, "has an alias (*name), which is not read; write it out")
        return []
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        report(path, None, "needs names: a list of them, or each after its number from 0")
        return []
    return [str(name) for name in names]
