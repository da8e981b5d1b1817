"""Tiny-ImageNet-200 (Stanford CS231n) as its archive unpacks."""

from __future__ import annotations

from pathlib import Path

from trt_cam.data.lists import first_words, numbers, read_lines
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Table
from trt_cam.data.walk import is_picture, scan

_SIZE = (64, 64)
_CLASSES, _VAL = "wnids.txt", "val_annotations.txt"


class TinyImageNet(DataSet):
    """``train/<wnid>/images`` with ``<wnid>_boxes.txt``, ``val/images`` with ``val_annotations.txt``, ``test/images``.

    Labels count the sorted WordNet ids of ``wnids.txt``, as those of a folder for each class do. Every photo has one
    box; its far corner is a pixel of the object. The photos of ``test`` have neither label nor box.
    """

    kind = "tiny-imagenet"
    needs = f"{_CLASSES}, train/<wnid>/images/ with <wnid>_boxes.txt and val/images/ with {_VAL}"
    inclusive = True

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        super().__init__(root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """Train, val and test, as far as they are there."""
        trained = [wnid for wnid in scan(Folder(root), "train", ignore)[0] if _boxes(root, wnid).is_file()]
        val, test = (root / "val" / _VAL).is_file(), (root / "test" / "images").is_dir()
        there = (("train", bool(trained)), ("val", val), ("test", test))
        found = tuple(split for split, is_there in there if is_there)
        return found if (root / _CLASSES).is_file() and found != ("test",) else ()

    def read(self, table: Table, report: Report) -> None:
        """Classes, then the lines of each list."""
        labels = self._read_classes(table, report)
        table.source = self.photos.at(self.split)
        if self.split == "test":
            for file in filter(is_picture, scan(self.photos, "test/images", report)[1]):
                table.add(file, (None, None), name=f"test/images/{file}")
        elif self.split == "val":
            self._read_list(f"val/{_VAL}", "val/images", labels, None, table, report)
        else:
            for wnid in labels:
                self._read_list(f"train/{wnid}/{wnid}_boxes.txt", f"train/{wnid}/images", labels, wnid, table, report)
            for wnid in scan(self.photos, "train", report)[0]:
                if wnid not in labels:
                    report(self.photos.at(f"train/{wnid}"), None, f"unknown class {wnid}: it is not in {_CLASSES}")

    def _read_classes(self, table: Table, report: Report) -> dict[str, int]:
        lines = first_words(self.photos, _CLASSES, report)
        return {wnid: table.add_class(wnid, (self.photos.at(_CLASSES), lines[wnid])) for wnid in sorted(lines)}

    def _read_list(
        self, name: str, photos: str, labels: dict[str, int], wnid: str | None, table: Table, report: Report
    ) -> None:
        """A list of photos of one class, or of any, where each line names it."""
        file, seen = self.photos.at(name), dict[str, int]()
        form = "<photo> <x0> <y0> <x1> <y1>" if wnid else "<photo> <wnid> <x0> <y0> <x1> <y1>"
        for line, text in read_lines(self.photos, name, report):
            photo, *rest = text.split()
            named = wnid or (rest.pop(0) if rest else "")
            corners = numbers(rest)
            if corners is None or len(corners) != 4:
                report(file, line, f"needs {form}, got {quoted(text)}")
            elif named not in labels:
                report(file, line, f"unknown class {quoted(named)}: it is not in {_CLASSES}")
            elif photo in seen:
                report(file, line, f"{photo} stands in line {seen[photo]} already")
            else:
                seen[photo] = line
                row = table.add(photo, (file, line), labels[named], _SIZE, f"{photos}/{photo}")
                table.add_box(row, corners, (file, line))


def _boxes(root: Path, wnid: str) -> Path:
    return root / "train" / wnid / f"{wnid}_boxes.txt"
