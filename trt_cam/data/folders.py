"""Trees of photos: a folder for each class, with boxes in a table if wanted; or photos alone."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from trt_cam.data.lists import numbers, read_lines
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Table
from trt_cam.data.walk import is_picture, join, pictures, scan

SPLITS = ("train", "val", "test")
_COLUMNS = ["path", "x0", "y0", "x1", "y1"]


class ClassFolders(DataSet):
    """``<class>/.../<photo>``, or ``train``, ``val`` and ``test`` of that form; labels count the sorted folders.

    Parameters
    ----------
    root, split
        As in `DataSet`.
    boxes
        A CSV file of ``path,x0,y0,x1,y1``, one box a line, far edge exclusive, with or without these words as its
        first line; paths from the root. None takes ``boxes.csv`` in the root if it is there.
    """

    kind = "folders"
    needs = "<class>/<photo>, or train/<class>/<photo> and so on"

    def __init__(self, root: str | Path, split: str | None = None, *, boxes: str | Path | None = None) -> None:
        self.boxes = Path(os.path.expanduser(boxes)) if boxes is not None else None
        super().__init__(root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """Train, val and test if class folders are in them, else the whole."""
        inner = tuple(split for split in SPLITS if _holds_classes(Folder(root, split)))
        return inner or (("all",) if _holds_classes(Folder(root)) else ())

    def read(self, table: Table, report: Report) -> None:
        """Every picture below a class folder, then the boxes."""
        top = "" if self.split == "all" else self.split
        table.source = self.photos.at(top)
        rows: dict[str, int] = {}
        folders, files = scan(self.photos, top, report)
        for name in filter(is_picture, files):
            why = "lies beside the class folders, in none; move it, or read all as kind='photos'"
            report(self.photos.at(join(top, name)), None, why)
        for name in self.class_folders(folders):
            label = table.add_class(name, (self.photos.at(join(top, name)), None))
            for photo in pictures(self.photos, join(top, name), report):
                rows[photo] = table.add(photo, (None, None), label)
        self.read_boxes(rows, table, report)

    def class_folders(self, folders: list[str]) -> list[str]:
        """Those of the folders that are classes."""
        return folders

    def read_boxes(self, rows: dict[str, int], table: Table, report: Report) -> None:
        """The boxes of a table, for photos by name."""
        path = self.boxes or self.root / "boxes.csv"
        if self.boxes is None and not path.is_file():
            return
        there = path.resolve() if self.boxes is not None else path  # what is asked for by its path may be a link
        others = set(self.splits()) - {self.split}
        for line, values in _table_rows(Folder(there.parent), there.name, report):
            corners = numbers(values[1:])
            if len(values) != 5 or corners is None:
                report(path, line, f"needs {','.join(_COLUMNS)}, got {quoted(','.join(values))}")
            elif values[0] in rows:
                table.add_box(rows[values[0]], corners, (path, line))
            elif values[0].partition("/")[0] not in others:
                report(path, line, f"{quoted(values[0])} is no photo of split {self.split}")


def _holds_classes(folder: Folder) -> bool:
    """Whether pictures lie in folders of this one."""
    return any(True for name in scan(folder, "", ignore)[0] for _ in pictures(folder, name, ignore))


def _table_rows(folder: Folder, name: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line of a CSV file after its heading, if it has one."""
    for count, (line, text) in enumerate(read_lines(folder, name, report)):
        values = _fields(text)
        if count or numbers(values[1:]) is not None:
            yield line, values
        elif [value.lower() for value in values] != _COLUMNS:
            report(folder.at(name), line, f"needs the columns {','.join(_COLUMNS)}, got {quoted(text)}")


def _fields(text: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([text]))]
    except csv.Error:  # a field over the limit of the reader
        return [text]


class Photos(DataSet):
    """Photos below a folder, without labels."""

    kind = "photos"
    needs = "photos"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        super().__init__(root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The whole, if there is a picture anywhere."""
        return ("all",) if any(True for _ in pictures(Folder(root), "", ignore)) else ()

    def read(self, table: Table, report: Report) -> None:
        """Every picture."""
        for photo in pictures(self.photos, "", report):
            table.add(photo, (None, None))
