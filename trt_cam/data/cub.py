"""CUB-200-2011 (Wah et al., 2011) as its archive unpacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trt_cam.data.lists import numbers, read_lines, whole
from trt_cam.data.problems import Folder, Report, quoted
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Table

_INNER = "CUB_200_2011"


class Cub(DataSet):
    """The original tree: five lists joined by number, photos in ``images``; the splits are train and test.

    A box is ``x, y, x + w, y + h`` of the list's ``x y w h``, and its far corner counts as a pixel of the object, as
    the field's evaluators have it.
    """

    kind = "cub"
    needs = "images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt, classes.txt and images/"
    inclusive = True

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """Train and test, in the folder or in its CUB_200_2011."""
        there = all(_lists_of(root).at(name).is_file() for name in ("images.txt", "train_test_split.txt"))
        return ("train", "test") if there else ()

    def find_photos(self) -> Folder:
        """``images``."""
        return Folder(self.root, f"{_lists_of(self.root).below}/images".lstrip("/"))

    def read(self, table: Table, report: Report) -> None:
        """Split, classes, names, labels, boxes, in this order."""
        folder = _lists_of(self.root)
        table.source = folder.at("images.txt")
        lists = _Lists(folder, report)
        taken = lists.read_split(self.split)
        classes = lists.read_classes(table)
        lists.read_names(taken, table)
        lists.read_labels(classes, table)
        lists.read_boxes(table)


def _lists_of(root: Path) -> Folder:
    return Folder(root, _INNER if (root / _INNER / "images.txt").is_file() else "")


class _Lists:
    """The lists of a tree, joined by the number that begins each line."""

    def __init__(self, folder: Folder, report: Report) -> None:
        self.folder, self.report = folder, report
        self.rows: dict[int, int | None] = {}  # number of a photo -> its row, None in another split

    def read_split(self, split: str) -> dict[int, tuple[bool, int]]:
        """Whether each photo is in the split, and the line that says so."""
        taken: dict[int, tuple[bool, int]] = {}
        for line, number, text in self.lines("train_test_split.txt"):
            if text not in ("0", "1"):
                self.say("train_test_split.txt", line, f"needs <number> <1 for train, 0 for test>, got {quoted(text)}")
            elif number in taken:
                self.say("train_test_split.txt", line, f"photo {number} stands in a line before")
            else:
                taken[number] = (text == "1") == (split == "train"), line
        return taken

    def read_classes(self, table: Table) -> dict[int, int]:
        """Label of each class number."""
        file, labels = self.folder.at("classes.txt"), dict[int, int]()
        for line, number, name in self.lines("classes.txt"):
            if number in labels or name in table.classes:
                self.say("classes.txt", line, f"class {number} {name} stands in a line before")
            else:
                labels[number] = table.add_class(name, (file, line))
        return labels

    def read_names(self, taken: dict[int, tuple[bool, int]], table: Table) -> None:
        """Add the photos of the split."""
        names: set[str] = set()
        for line, number, name in self.lines("images.txt"):
            if number in self.rows or name in names:
                self.say("images.txt", line, f"photo {number} {name} stands in a line before")
            elif number not in taken:
                self.say("images.txt", line, f"photo {number} does not stand in train_test_split.txt")
            else:
                place = self.folder.at("images.txt"), line
                self.rows[number] = table.add(name, place) if taken[number][0] else None
                names.add(name)
        for number in sorted(taken.keys() - self.rows.keys()):
            self.say("train_test_split.txt", taken[number][1], f"photo {number} does not stand in images.txt")

    def read_labels(self, classes: dict[int, int], table: Table) -> None:
        """Set the label of each photo."""
        seen: set[int] = set()
        for line, number, text in self.lines("image_class_labels.txt"):
            label = None if (named := whole(text)) is None else classes.get(named)
            if number not in self.rows:
                self.say("image_class_labels.txt", line, f"photo {number} does not stand in images.txt")
            elif number in seen:
                self.say("image_class_labels.txt", line, f"photo {number} has a label already")
            elif label is None:
                self.say("image_class_labels.txt", line, f"unknown class {quoted(text)}: it is not in classes.txt")
            elif (row := self.rows[number]) is not None:
                table.labels[row] = label
            seen.add(number)
        self.missing(seen, "label", "image_class_labels.txt", table)

    def read_boxes(self, table: Table) -> None:
        """Add the box of each photo."""
        seen: set[int] = set()
        for line, number, text in self.lines("bounding_boxes.txt"):
            box = numbers(text.split())
            if number not in self.rows:
                self.say("bounding_boxes.txt", line, f"photo {number} does not stand in images.txt")
            elif number in seen:
                self.say("bounding_boxes.txt", line, f"photo {number} has a box already")
            elif box is None or len(box) != 4:
                self.say("bounding_boxes.txt", line, f"needs <number> <x> <y> <width> <height>, got {quoted(text)}")
            elif (row := self.rows[number]) is not None:
                x, y, width, height = box
                table.add_box(row, (x, y, x + width, y + height), (self.folder.at("bounding_boxes.txt"), line))
            seen.add(number)
        self.missing(seen, "box", "bounding_boxes.txt", table)

    def lines(self, name: str) -> Iterator[tuple[int, int, str]]:
        """Line, number and rest of each line of a list."""
        for line, text in read_lines(self.folder, name, self.report):
            first, _, rest = text.partition(" ")
            number = whole(first)
            if number is None or not rest.strip():
                self.say(name, line, f"needs a number and a value, got {quoted(text)}")
            else:
                yield line, number, rest.strip()

    def say(self, name: str, line: int | None, message: str) -> None:
        self.report(self.folder.at(name), line, message)

    def missing(self, seen: set[int], what: str, name: str, table: Table) -> None:
        for number, row in self.rows.items():
            if row is not None and number not in seen:
                self.report(
                    self.folder.at("images.txt"),
                    table.places[row][1],
                    f"{table.ids[row]} has no {what} in {self.folder.at(name)}",
                )
