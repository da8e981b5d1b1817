"""The lists of wsolevaluation (Choe et al., CVPR 2020) for CUB, ILSVRC and OpenImages, with CUBV2 and ImageNetV2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trt_cam.data.lists import numbers, read_lines, whole
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet, choose, existing_folder
from trt_cam.data.table import Table
from trt_cam.data.walk import scan

SPLITS = ("train", "val", "test")
CLASSES = {"CUB": 200, "ILSVRC": 1000, "OpenImages": 100}
_IDS, _LABELS, _SIZES, _BOXES = "image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"


class WsolLists(DataSet):
    """Splits described by ``image_ids.txt``, ``class_labels.txt``, ``image_sizes.txt`` and ``localization.txt``.

    They lie in ``metadata/<NAME>/<split>``, ``metadata/<split>`` or ``<split>``; the photos in ``dataset/<NAME>`` if
    that exists, else in the folder itself. ``val`` is CUBV2 for CUB and ImageNetV2 for ILSVRC. Far corners are read
    as pixels of the object, as the evaluator does.

    Parameters
    ----------
    root, split, photos_root
        As in `DataSet`.
    name
        Which of several data sets below ``metadata``.
    masks_root
        Folder of OpenImages' masks; None for that of the photos.
    """

    kind = "wsol"
    needs = "metadata/<NAME>/<split>/image_ids.txt, metadata/<split>/image_ids.txt or <split>/image_ids.txt"
    inclusive = True

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        photos_root: str | Path | None = None,
        name: str | None = None,
        masks_root: str | Path | None = None,
    ) -> None:
        top = existing_folder(root)
        self.lists = choose(top, _folders(top), name, "lists of ") or ""
        self.masks_root = existing_folder(masks_root) if masks_root is not None else None
        super().__init__(root, split, photos_root=photos_root)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The splits of all data sets there."""
        found = {split for folder in _folders(root).values() for split in _splits(root / folder)}
        return tuple(split for split in SPLITS if split in found)

    def splits(self) -> tuple[str, ...]:
        """The splits of this data set."""
        return _splits(self.root / self.lists)

    @property
    def name(self) -> str:
        """Of the data set: CUB, ILSVRC, OpenImages or the folder's name."""
        own = Path(self.lists).name
        return own if own not in ("", "metadata") else super().name

    @property
    def num_classes(self) -> int:
        """The benchmark's number for its three data sets, else up to the highest label."""
        return CLASSES.get(self.name) or super().num_classes

    def find_photos(self) -> Folder:
        """``dataset/<NAME>``, else the folder itself."""
        own = f"dataset/{self.name}"
        return Folder(self.root, own if (self.root / own).is_dir() else "")

    @property
    def masks(self) -> Folder:
        """``masks_root``, else the folder of the photos."""
        return Folder(self.masks_root) if self.masks_root is not None else self.photos

    def read(self, table: Table, report: Report) -> None:
        """Join the four lists by id."""
        folder = Folder(self.root, f"{self.lists}/{self.split}".lstrip("/"))
        table.source = folder.at(_IDS)
        lists = _Lists(folder, table, report)
        lists.read_ids()
        lists.read_labels(CLASSES.get(self.name))
        lists.read_sizes()
        lists.read_regions()


def _folders(root: Path) -> dict[str, str]:
    """Name of each data set there -> its folder of lists below the root."""
    below = scan(Folder(root), "metadata", ignore)[0]
    named = {name: f"metadata/{name}" for name in below if _splits(root / "metadata" / name)}
    others = {root.resolve().name: folder for folder in ("metadata", "") if _splits(root / folder)}
    return named or others


def _splits(folder: Path) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if (folder / split / _IDS).is_file())


class _Lists:
    """The four lists of one split, on the way into a table."""

    def __init__(self, folder: Folder, table: Table, report: Report) -> None:
        self.folder, self.table, self.report = folder, table, report
        self.rows: dict[str, int] = {}

    def read_ids(self) -> None:
        file = self.folder.at(_IDS)
        for line, id in self.lines(_IDS):
            if id in self.rows:
                self.report(file, line, f"{id} stands in line {self.table.places[self.rows[id]][1]} already")
            else:
                self.rows[id] = self.table.add(id, (file, line))

    def read_labels(self, classes: int | None) -> None:
        file, known = self.folder.at(_LABELS), classes or 10**9
        seen = bytearray(len(self.table))
        for line, row, (text,) in self.fields(_LABELS, 1):
            label = whole(text)
            if label is None or label < 0:
                self.report(file, line, f"needs <id>,<label from 0>, got label {quoted(text)}")
            elif label >= known:
                self.report(file, line, f"unknown class {label}: the classes are 0 to {known - 1}")
            elif seen[row]:
                self.report(file, line, f"{self.table.ids[row]} has a label already")
            else:
                self.table.labels[row] = label
            seen[row] = 1
        self.missing(seen, "label", file)
        absent = np.setdiff1d(np.arange(classes or 0), np.array(self.table.labels))
        if len(absent):
            shown = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
            self.report(file, None, f"has no photo of {len(absent)} of {known} classes: {shown}", fatal=False)

    def read_sizes(self) -> None:
        file = self.folder.at(_SIZES)
        if not file.exists():  # OpenImages has none, and masks need none
            return
        seen = bytearray(len(self.table))
        for line, row, values in self.fields(_SIZES, 2):
            width, height = (whole(value) for value in values)
            if width is None or height is None or min(width, height) < 1:
                self.report(file, line, f"needs <id>,<width>,<height>, got {quoted(','.join(values))}")
            elif seen[row]:
                self.report(file, line, f"{self.table.ids[row]} has a size already")
            else:
                self.table.set_size(row, (height, width))
            seen[row] = 1
        self.missing(seen, "size", file)

    def read_regions(self) -> None:
        file = self.folder.at(_BOXES)
        if not file.exists():  # photos for training have none
            return
        for line, text in self.lines(_BOXES):
            masks, values = text.rsplit(",", 2), text.rsplit(",", 4)
            corners = numbers(values[1:])
            if len(masks) == 3 and masks[1].lower().endswith(".png"):
                self.add_mask(line, *masks)
            elif corners is None or len(corners) < 4:
                self.report(file, line, f"needs <id>,<x0>,<y0>,<x1>,<y1> or <id>,<mask>,<ignored>, got {quoted(text)}")
            elif values[0] not in self.rows:
                self.unknown(file, line, values[0])
            else:
                self.table.add_box(self.rows[values[0]], corners, (file, line))

    def add_mask(self, line: int, id: str, mask: str, ignore: str) -> None:
        file, row = self.folder.at(_BOXES), self.rows.get(id)
        if row is None:
            self.unknown(file, line, id)
        elif mask in self.table.masks.get(row, ()):
            self.report(file, line, f"{mask} stands twice for {id}")
        elif ignore and row in self.table.ignore:
            self.report(file, line, f"{id} has an ignored region already")
        else:
            self.table.add_mask(row, mask, ignore)

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        return read_lines(self.folder, name, self.report)

    def fields(self, name: str, count: int) -> Iterator[tuple[int, int, list[str]]]:
        """Line, row and the last fields of each line that has them; an id may have commas itself."""
        for line, text in self.lines(name):
            id, *values = text.rsplit(",", count)
            if len(values) < count:
                self.report(self.folder.at(name), line, f"needs <id> and {count} more after commas, got {quoted(text)}")
            elif id not in self.rows:
                self.unknown(self.folder.at(name), line, id)
            else:
                yield line, self.rows[id], values

    def unknown(self, file: Path, line: int, id: str) -> None:
        self.report(file, line, f"{quoted(id)} does not stand in {_IDS}")

    def missing(self, seen: bytearray, what: str, file: Path) -> None:
        for row in np.flatnonzero(np.frombuffer(seen, dtype=np.uint8) == 0).tolist():
            self.report(
                self.folder.at(_IDS), self.table.places[row][1], f"{self.table.ids[row]} has no {what} in {file}"
            )
