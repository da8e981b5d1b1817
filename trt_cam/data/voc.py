"""PASCAL VOC (Everingham et al., IJCV 2010) as its archives unpack, and trees of that form."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from trt_cam.data.annotations import Annotation, read_annotation
from trt_cam.data.lists import read_lines
from trt_cam.data.objects import add_objects
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet, choose, existing_folder
from trt_cam.data.table import Table
from trt_cam.data.walk import is_picture, join, scan

SPLITS = ("train", "val", "trainval", "test")
_XML, _PHOTOS, _SETS = "Annotations", "JPEGImages", "ImageSets/Main"


class Voc(DataSet):
    """``Annotations/*.xml``, ``JPEGImages``, ``ImageSets/Main``; in the folder, in VOC<year> or VOCdevkit/VOC<year>.

    A sample is a photo and one class that it shows, with all boxes of that class, also the ones marked difficult;
    its id is ``<photo>#<class>``. Corners are counted from 0, one less than in the files; the far ones are pixels of
    the object. Labels count the sorted names of the lists ``<class>_<split>.txt``, else of all objects.

    Parameters
    ----------
    root, split, photos_root
        As in `DataSet`.
    name
        Which of several years.
    """

    kind = "voc"
    needs = f"{_XML}/*.xml, {_PHOTOS}/ and {_SETS}/<split>.txt, in it or in VOCdevkit/VOC<year>/"
    inclusive = True

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        *,
        photos_root: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        top = existing_folder(root)
        self.folder = choose(top, _folders(top), name) or Folder(top)
        super().__init__(root, split, photos_root=photos_root)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The splits of all years there."""
        found = {split for folder in _folders(root).values() for split in _splits(folder)}
        return tuple(split for split in (*SPLITS, "all") if split in found)

    def splits(self) -> tuple[str, ...]:
        """The lists in ``ImageSets/Main``; without them, the whole."""
        return _splits(self.folder)

    @property
    def name(self) -> str:
        """Of the folder, such as VOC2012."""
        return PurePosixPath(self.folder.below).name or super().name

    def find_photos(self) -> Folder:
        """``JPEGImages``."""
        return Folder(self.root, join(self.folder.below, _PHOTOS))

    def read(self, table: Table, report: Report) -> None:
        """Every XML file of the split, in the order of its list."""
        places = self._stems(table, report)
        classes = _class_lists(self.folder)
        read = set(places) if classes else _all(self.folder)
        notes = {stem: read_annotation(self.folder, f"{_XML}/{stem}.xml", report) for stem in sorted(read)}
        named = classes or {one.name for note in notes.values() if note is not None for one in note.objects}
        labels = {name: table.add_class(name, (None, None)) for name in sorted(named)}
        for stem, line in places.items():
            note = notes.get(stem)
            if note is not None:
                self._add(stem, line, note, labels, table, report)

    def _stems(self, table: Table, report: Report) -> dict[str, int | None]:
        """Names of the split's photos without suffix, and the line each stands in."""
        if self.split == "all":
            table.source = self.folder.at(_XML)
            return dict.fromkeys(sorted(_all(self.folder)))
        name, stems = f"{_SETS}/{self.split}.txt", dict[str, int | None]()
        file = table.source = self.folder.at(name)
        there = _all(self.folder)
        for line, stem in read_lines(self.folder, name, report):
            if stem in stems:
                report(file, line, f"{stem} stands in line {stems[stem]} already")
            elif stem not in there:
                report(file, line, f"{quoted(stem)} has no file in {self.folder.at(_XML)}")
            else:
                stems[stem] = line
        return stems

    def _add(
        self, stem: str, line: int | None, note: Annotation, labels: dict[str, int], table: Table, report: Report
    ) -> None:
        file = self.folder.at(f"{_XML}/{stem}.xml")
        suffix = PurePosixPath(note.filename).suffix
        objects = []
        for one in note.objects:
            if one.name in labels:
                objects.append((labels[one.name], [value - 1 for value in one.corners], (file, one.line)))
            else:
                report(file, one.line, f"unknown class {quoted(one.name)}: it has no list in {self.folder.at(_SETS)}")
        photo = stem + (suffix if is_picture(note.filename) else ".jpg")
        place = (file, None) if line is None else (self.folder.at(f"{_SETS}/{self.split}.txt"), line)
        add_objects(table, photo, place, objects, note.size)


def _folders(root: Path) -> dict[str, Folder]:
    """Name of each VOC tree there -> its folder."""
    below = {name: name for name in scan(Folder(root), "", ignore)[0]}
    below |= {name: f"VOCdevkit/{name}" for name in scan(Folder(root), "VOCdevkit", ignore)[0]}
    found = {name: Folder(root, path) for name, path in below.items() if _is_tree(root / path)}
    return {root.resolve().name: Folder(root)} if _is_tree(root) else found


def _is_tree(folder: Path) -> bool:
    return (folder / _XML).is_dir() and ((folder / _PHOTOS).is_dir() or (folder / _SETS).is_dir())


def _splits(folder: Folder) -> tuple[str, ...]:
    lists = tuple(split for split in SPLITS if folder.at(f"{_SETS}/{split}.txt").is_file())
    return lists or (("all",) if _is_tree(folder.at("")) else ())


def _all(folder: Folder) -> set[str]:
    return {file[:-4] for file in scan(folder, _XML, ignore)[1] if file.endswith(".xml")}


def _class_lists(folder: Folder) -> set[str]:
    parts = [file.removesuffix(".txt").rpartition("_") for file in scan(folder, _SETS, ignore)[1]]
    return {name for name, _, split in parts if name and split in SPLITS}
