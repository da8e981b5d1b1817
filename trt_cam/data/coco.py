"""COCO (Lin et al., ECCV 2014) and data sets in its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from trt_cam.data.lists import read_json
from trt_cam.data.objects import add_objects
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Place, Table
from trt_cam.data.walk import scan

_FOLDER, _OFFICIAL, _INNER = "annotations", "instances_", "_annotations.coco.json"


class Coco(DataSet):
    """``annotations/instances_<split>.json`` or ``annotations/<split>.json``, or ``<split>/_annotations.coco.json``.

    Photos are in ``<split>``, ``images/<split>``, ``images`` or the folder itself. A sample is a photo and one class
    that it shows, with all boxes of that class; its id is ``<photo>#<class>``. Boxes are ``x, y, x + w, y + h``, far
    edge exclusive; regions of crowds are left out. Labels count the categories by their number in the file.
    """

    kind = "coco"
    needs = f"{_FOLDER}/{_OFFICIAL}<split>.json, {_FOLDER}/<split>.json or <split>/{_INNER}"

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The splits that have a file."""
        return tuple(sorted(_files(root)))

    def find_photos(self) -> Folder:
        """The first of the folders where photos may be."""
        places = (self.split, f"images/{self.split}", "images")
        return Folder(self.root, next((place for place in places if (self.root / place).is_dir()), ""))

    def read(self, table: Table, report: Report) -> None:
        """Categories, images, annotations."""
        name = _files(self.root)[self.split]
        table.source = self.root / name
        content = read_json(Folder(self.root), name, report)
        if content is None:
            return
        if not isinstance(content, dict):
            report(table.source, None, f"needs an object with images, annotations and categories, got {_kind(content)}")
            return
        parts = _Parts(table, report, content)
        labels, images = parts.read_categories(), parts.read_images()
        objects = parts.read_annotations(labels, images)
        for id, (photo, size) in images.items():
            add_objects(table, photo, (table.source, None), objects.get(id, ()), size)


class _Parts:
    """The three lists of a file, each entry checked."""

    def __init__(self, table: Table, report: Report, content: dict[str, Any]) -> None:
        self.table, self.place = table, (table.source, None)
        self.content = content
        self._report = report

    def read_categories(self) -> dict[int, int]:
        """Label of each category's number."""
        names: dict[int, str] = {}
        for at, entry in self.entries("categories"):
            id, name = entry.get("id"), entry.get("name")
            if not _is_id(id) or not isinstance(name, str):
                self.say("categories", at, f"needs a number id and a name, got {_short(id)} and {_short(name)}")
            elif id in names or name in names.values():
                self.say("categories", at, f"category {id} {name} stands before")
            else:
                names[id] = name
        return {id: self.table.add_class(names[id], self.place) for id in sorted(names)}

    def read_images(self) -> dict[int, tuple[str, tuple[int, int] | None]]:
        """File name and (H, W) of each image's number."""
        images: dict[int, tuple[str, tuple[int, int] | None]] = {}
        names: set[str] = set()
        for at, entry in self.entries("images"):
            id, name = entry.get("id"), entry.get("file_name")
            size: Any = entry.get("height"), entry.get("width")
            if not _is_id(id) or not isinstance(name, str):
                self.say("images", at, f"needs a number id and a file_name, got {_short(id)} and {_short(name)}")
            elif id in images or name in names:
                self.say("images", at, f"image {id} {name} stands before")
            elif size != (None, None) and not all(_is_id(side) and 0 < side < 2**31 for side in size):
                self.say("images", at, f"needs a positive height and width, got {_short(size)}")
            else:
                images[id] = name, size if size != (None, None) else None
                names.add(name)
        return images

    def read_annotations(
        self, labels: dict[int, int], images: dict[int, Any]
    ) -> dict[int, list[tuple[int, list[float], Place]]]:
        """Label, corners and place of each object, by image."""
        objects: dict[int, list[tuple[int, list[float], Place]]] = {}
        for at, entry in self.entries("annotations"):
            image, category, box = (entry.get(key) for key in ("image_id", "category_id", "bbox"))
            if not _is_id(image) or image not in images:
                self.say("annotations", at, f"image {_short(image)} is not among the images")
            elif not _is_id(category) or category not in labels:
                self.say("annotations", at, f"unknown class {_short(category)}: it is not among the categories")
            elif not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
                self.say("annotations", at, f"needs bbox [x, y, width, height], got {_short(box)}")
            elif not entry.get("iscrowd"):
                x, y, width, height = map(float, box)
                found = labels[category], [x, y, x + width, y + height], self.place
                objects.setdefault(image, []).append(found)
        return objects

    def entries(self, key: str) -> list[tuple[int, dict[str, Any]]]:
        """The objects of one list, numbered."""
        values = self.content.get(key)
        if not isinstance(values, list):
            self._report(self.table.source, None, f"needs a list {key!r}, got {_kind(values)}")
            return []
        for at, value in enumerate(values):
            if not isinstance(value, dict):
                self.say(key, at, f"needs an object, got {_kind(value)}")
        return [(at, value) for at, value in enumerate(values) if isinstance(value, dict)]

    def say(self, key: str, at: int, message: str) -> None:
        self._report(self.table.source, None, f"{key}[{at}]: {message}")


def _files(root: Path) -> dict[str, str]:
    """Split -> name of its file."""
    names = [file for file in scan(Folder(root), _FOLDER, ignore)[1] if file.endswith(".json")]
    official = [name for name in names if name.startswith(_OFFICIAL)]  # beside captions, keypoints, panoptic
    found = {name[:-5].removeprefix(_OFFICIAL): f"{_FOLDER}/{name}" for name in official or names}
    inner = [name for name in scan(Folder(root), "", ignore)[0] if (root / name / _INNER).is_file()]
    return found or {name: f"{name}/{_INNER}" for name in inner}


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # false for NaN


def _kind(value: Any) -> str:
    return "none" if value is None else type(value).__name__


def _short(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else quoted(repr(value))[1:-1]
