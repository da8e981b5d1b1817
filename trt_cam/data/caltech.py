"""Caltech-101 (Fei-Fei et al., 2004) as its archives unpack."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import Any

from trt_cam.data.folders import ClassFolders
from trt_cam.data.lists import read_bytes
from trt_cam.data.problems import Folder, Report
from trt_cam.data.samples import DataSet
from trt_cam.data.table import Table

_PHOTOS, _NOTES, _CLUTTER = "101_ObjectCategories", "Annotations", "BACKGROUND_Google"
_RENAMED = {  # class -> its folder in the archive of annotations
    "Faces": "Faces_2",
    "Faces_easy": "Faces_3",
    "Motorbikes": "Motorbikes_16",
    "airplanes": "Airplanes_Side_2",
}


class Caltech101(ClassFolders):
    """``101_ObjectCategories/<class>/image_0001.jpg``, and ``Annotations/<class>/annotation_0001.mat`` if it is there.

    ``BACKGROUND_Google`` is no class, and its photos are left out. Corners are counted from 0, one less than in the
    files; the far ones are pixels of the object.
    """

    kind = "caltech-101"
    needs = f"{_PHOTOS}/<class>/ or <class>/ with {_CLUTTER}/, and {_NOTES}/ if wanted"
    inclusive = True

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        DataSet.__init__(self, root, split)

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The whole."""
        return ("all",) if (root / _PHOTOS).is_dir() or (root / _CLUTTER).is_dir() else ()

    def find_photos(self) -> Folder:
        """``101_ObjectCategories``."""
        return Folder(self.root, _PHOTOS if (self.root / _PHOTOS).is_dir() else "")

    def class_folders(self, folders: list[str]) -> list[str]:
        """All but the photos of clutter."""
        return [name for name in folders if name not in (_CLUTTER, _NOTES)]

    def read_boxes(self, rows: dict[str, int], table: Table, report: Report) -> None:
        """The box of each photo's MATLAB file."""
        if not (self.root / _NOTES).is_dir():
            return
        folder = Folder(self.root, _NOTES)
        for photo, row in rows.items():
            path = PurePosixPath(photo)
            name = f"{_RENAMED.get(path.parts[0], path.parts[0])}/{path.stem.replace('image', 'annotation')}.mat"
            if (content := read_bytes(folder, name, report)) is None:
                continue
            box = _box(content)
            if box is None:
                report(folder.at(name), None, "needs a MATLAB file with four numbers box_coord")
            else:
                top, bottom, left, right = box
                table.add_box(row, (left - 1, top - 1, right - 1, bottom - 1), (folder.at(name), None))


def _box(content: bytes) -> list[float] | None:
    import numpy as np
    from scipy.io import loadmat

    try:
        found: Any = loadmat(io.BytesIO(content), variable_names=["box_coord"])["box_coord"]
        values = np.asarray(found, dtype=np.float64).ravel()
    except Exception:  # the reader of damaged files raises nearly anything
        return None
    return values.tolist() if len(values) == 4 and np.isfinite(values).all() else None
