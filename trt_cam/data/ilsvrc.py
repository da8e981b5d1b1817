"""ILSVRC2012 (Russakovsky et al., IJCV 2015) as its archives or Kaggle's unpack, and by TS-CAM's lists."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from trt_cam.data.annotations import Annotation, read_annotation
from trt_cam.data.lists import first_words, numbers, read_lines, whole
from trt_cam.data.problems import Folder, Report, ignore, quoted
from trt_cam.data.samples import DataSet, existing_folder
from trt_cam.data.table import Table
from trt_cam.data.walk import is_picture, join, pictures, scan

_WNID = re.compile(r"n[0-9]{8}")
_PHOTOS = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")
_MAPPING = "LOC_synset_mapping.txt"
_XML = ("Annotations/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val", "bbox/val")
_LISTS = "ILSVRC2012_list"


class Ilsvrc(DataSet):
    """Photos in ``train/<wnid>`` and ``val`` or ``val/<wnid>``, below ``Data/CLS-LOC`` or not; boxes of val in XML.

    Labels count the sorted WordNet ids of ``LOC_synset_mapping.txt``, else of the folders of train, of val, or those
    in the XML. Corners are as the XML holds them; the far ones are pixels of the object.

    Parameters
    ----------
    root, split
        As in `DataSet`.
    annotations_root
        Folder of val's XML files, where it lies elsewhere.
    """

    kind = "ilsvrc"
    needs = f"train/<wnid>/, val/<wnid>/ or val/ with {_XML[0]}/ or {_XML[-1]}/, photos below {_PHOTOS[0]} or not"
    inclusive = True

    def __init__(
        self, root: str | Path, split: str | None = None, *, annotations_root: str | Path | None = None
    ) -> None:
        given = Folder(existing_folder(annotations_root)) if annotations_root is not None else None
        self.annotations = given or _annotations(existing_folder(root))
        super().__init__(root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """Train and val, as far as they are there."""
        return _splits(root, _annotations(root))

    def splits(self) -> tuple[str, ...]:
        """Train and val, as far as they are there."""
        return _splits(self.root, self.annotations)

    def find_photos(self) -> Folder:
        """``Data/CLS-LOC``, else the folder itself."""
        return _photos(self.root)

    def read(self, table: Table, report: Report) -> None:
        """Train by its folders; val by its photos and their XML."""
        table.source = self.photos.at(self.split)
        labels = self._read_classes(table, report)
        if self.split == "val" and self.annotations is not None:
            self._read_annotated(self.annotations, labels, table, report)
            return
        for wnid, name in self._by_folder(report):
            if wnid not in labels:
                report(self.photos.at(name), None, f"unknown class {wnid}" if wnid else "lies in no class folder")
            else:
                table.add(name, (None, None), labels[wnid])

    def _read_classes(self, table: Table, report: Report) -> dict[str, int]:
        if (self.root / _MAPPING).is_file():
            lines = first_words(Folder(self.root), _MAPPING, report)
            for wnid in sorted(lines):
                table.add_class(wnid, (self.root / _MAPPING, lines[wnid]))
        for split in ("train", "val"):
            if not table.classes and self.photos.at(split).is_dir():
                for wnid in filter(_WNID.fullmatch, scan(self.photos, split, report)[0]):
                    table.add_class(wnid, (self.photos.at(split) / wnid, None))
        return {wnid: label for label, wnid in enumerate(table.classes)}

    def _by_folder(self, report: Report) -> list[tuple[str, str]]:
        """WordNet id (empty for a flat folder) and name of each photo."""
        folders, files = scan(self.photos, self.split, report)
        found = [("", join(self.split, file)) for file in files if is_picture(file)]
        for folder in folders:
            found += [(folder, name) for name in pictures(self.photos, join(self.split, folder), report)]
        return found

    def _read_annotated(self, notes: Folder, labels: dict[str, int], table: Table, report: Report) -> None:
        table.source = notes.at("")
        photos: dict[str, tuple[str, str]] = {}
        for wnid, name in self._by_folder(report):
            stem = PurePosixPath(name).stem
            if stem in photos:
                report(self.photos.at(name), None, f"stands as {photos[stem][1]} too")
            photos[stem] = wnid, name
        stems = {file[:-4]: file for file in scan(notes, "", report)[1] if file.endswith(".xml")}
        found = {stem: read_annotation(notes, stems[stem], report) for stem in sorted(stems)}
        if not labels:
            named = sorted({one.name for note in found.values() if note is not None for one in note.objects})
            labels = {wnid: table.add_class(wnid, (None, None)) for wnid in named}
        unread = {stem for stem, note in found.items() if note is None}  # reported
        for stem in sorted((photos.keys() | stems.keys()) - unread):
            place = notes.at(stems.get(stem, f"{stem}.xml"))
            _add(stem, photos.get(stem), found.get(stem), place, labels, table, report)


def _add(
    stem: str,
    photo: tuple[str, str] | None,
    note: Annotation | None,
    file: Path,
    labels: dict[str, int],
    table: Table,
    report: Report,
) -> None:
    """One photo of val: its class by its folder or its objects, which must agree."""
    wnids = {one.name for one in note.objects} if note is not None else set()
    wnids |= {photo[0]} - {""} if photo is not None else set()
    if len(wnids) != 1:
        shown = ", ".join(sorted(wnids)) or ("none" if file.exists() else "none: this file is missing")
        report(file, None, f"{stem} needs one class, got {shown}")
        return
    wnid = wnids.pop()
    if wnid not in labels:
        report(file, note.objects[0].line if note is not None and note.objects else None, f"unknown class {wnid}")
        return
    name = photo[1] if photo is not None else f"val/{stem}.JPEG"
    row = table.add(name, (file, None), labels[wnid], note.size if note is not None else None)
    for one in note.objects if note is not None else ():
        table.add_box(row, one.corners, (file, one.line))


def _photos(root: Path) -> Folder:
    return next((Folder(root, name) for name in _PHOTOS if (root / name).is_dir()), Folder(root))


def _annotations(root: Path) -> Folder | None:
    return next((Folder(root, name) for name in _XML if (root / name).is_dir()), None)


def _splits(root: Path, annotations: Folder | None) -> tuple[str, ...]:
    there = []
    for split in ("train", "val"):
        folders, files = scan(_photos(root), split, ignore)
        flat = split == "val" and annotations is not None and any(map(is_picture, files))
        if flat or any(map(_WNID.fullmatch, folders)):
            there.append(split)
    return tuple(there)


class TsCamLists(DataSet):
    """``ILSVRC2012_list/train.txt`` and ``val_folder_new.txt``: ``<wnid>/<photo> <label> <x0 y0 x1 y1>...``.

    Photos are in ``train`` and ``val``; where only ``val_folder.txt`` is there, it holds the first box of each photo.
    The far corners are pixels of the object.
    """

    kind = "ts-cam"
    needs = f"{_LISTS}/train.txt, {_LISTS}/val_folder_new.txt or {_LISTS}/val_folder.txt"
    inclusive = True

    _lists = {"train": ("train.txt",), "val": ("val_folder_new.txt", "val_folder.txt")}

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """Train and val, as far as their lists are there."""
        return tuple(split for split in cls._lists if cls._list(root, split))

    @classmethod
    def _list(cls, root: Path, split: str) -> str:
        return next((name for name in cls._lists[split] if (root / _LISTS / name).is_file()), "")

    def find_photos(self) -> Folder:
        """``train`` or ``val``."""
        return Folder(self.root, self.split)

    def read(self, table: Table, report: Report) -> None:
        """One line is one photo."""
        folder, name = Folder(self.root, _LISTS), self._list(self.root, self.split)
        file = table.source = folder.at(name)
        lines, wnids = dict[str, int](), dict[int, str]()
        for line, text in read_lines(folder, name, report):
            id, *rest = text.split()
            label, corners = whole(rest[0]) if rest else None, numbers(rest[1:])
            wnid = id.partition("/")[0]
            if label is None or corners is None or len(corners) % 4:
                report(file, line, f"needs <wnid>/<photo> <label> and four numbers a box, got {quoted(text)}")
            elif not 0 <= label < 1000:
                report(file, line, f"unknown class {label}: the classes are 0 to 999")
            elif wnids.setdefault(label, wnid) != wnid:
                report(file, line, f"label {label} is {wnids[label]} in a line before, here {wnid}")
            elif id in lines:
                report(file, line, f"{id} stands in line {lines[id]} already")
            else:
                lines[id] = line
                row = table.add(id, (file, line), label)
                for box in range(0, len(corners), 4):
                    table.add_box(row, corners[box : box + 4], (file, line))
        if set(wnids) == set(range(len(wnids))):
            for label in range(len(wnids)):
                table.add_class(wnids[label], (None, None))
