"""The kinds of data sets, and which of them lies in a folder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from trt_cam.data.caltech import Caltech101
from trt_cam.data.coco import Coco
from trt_cam.data.cub import Cub
from trt_cam.data.folders import ClassFolders, Photos
from trt_cam.data.ilsvrc import Ilsvrc, TsCamLists
from trt_cam.data.problems import leads_out, printable
from trt_cam.data.samples import DataSet, existing_folder
from trt_cam.data.tiny_imagenet import TinyImageNet
from trt_cam.data.voc import Voc
from trt_cam.data.wsol import WsolLists
from trt_cam.data.yolo import Yolo
from trt_cam.errors import DatasetError, InputError

# In the order they are looked for: a tree that two kinds could read goes to the first.
_READERS: tuple[type[DataSet], ...] = (
    *(WsolLists, Cub, TsCamLists, TinyImageNet, Voc, Coco, Yolo, Caltech101, Ilsvrc),
    *(ClassFolders, Photos),
)
KINDS = {reader.kind: reader for reader in _READERS}


def load_dataset(
    path: str | Path, kind: str | type[DataSet] = "auto", split: str | None = None, **options: Any
) -> DataSet:
    """Open a data set in the layout that its archives unpack to.

    Parameters
    ----------
    path
        Folder that the archives were unpacked in.
    kind
        A name of `KINDS`, a `DataSet` of your own, or "auto", which looks at what lies in the folder.
    split
        Which part; None for the only one.
    options
        Of the kind, such as ``photos_root``.

    Returns
    -------
    A sequence of `Sample`. Its lists are read; its pictures are not.

    Raises
    ------
    InputError
        No such folder, kind, split or option.
    DatasetError
        The folder has nothing of that kind, or a list is broken: file, line and what is wrong.
    """
    found = _open(path, kind, split, options)
    found.labels()
    return found


def open_splits(
    path: str | Path, kind: str | type[DataSet] = "auto", split: str | None = None, **options: Any
) -> list[DataSet]:
    """Every split, or the one that is named, so that a broken one can be asked for its problems: no list is read yet.

    Arguments and errors as in `load_dataset`.
    """
    found = _open(path, kind, split, options)
    names = found.splits() if split is None else ()
    return [_open(path, type(found), name, options) for name in names or (found.split,)]


def _open(path: str | Path, kind: str | type[DataSet], split: str | None, options: dict[str, Any]) -> DataSet:
    reader = find_kind(path, kind)
    known = sorted(set(inspect.signature(reader.__init__).parameters) - {"self", "root", "split"})
    for name in options.keys() - set(known):
        raise InputError(
            f"data sets of kind {reader.kind} have no option {name!r}; they have {', '.join(known) or 'none'}"
        )
    return reader(path, split, **options)


def find_kind(path: str | Path, kind: str | type[DataSet] = "auto") -> type[DataSet]:
    """The reader for a folder; arguments and errors as in `load_dataset`."""
    if not isinstance(kind, str):
        return kind
    if kind != "auto":
        if kind not in KINDS:
            raise InputError(f"unknown kind of data set {kind!r}; known: auto, {', '.join(KINDS)}")
        return KINDS[kind]
    root = existing_folder(path)
    for reader in KINDS.values():
        if reader.find(root):
            return reader
    if not any(root.iterdir()):
        raise DatasetError(printable(f"photos or a data set were needed in {root}, which is empty; check the path"))
    looked = "; ".join(f"{name}: {reader.needs}" for name, reader in KINDS.items())
    links = [path.name for path in sorted(root.iterdir()) if leads_out(root, path.name)]
    passed = f"; not followed, because they are links out of it: {', '.join(links)}" if links else ""
    raise DatasetError(printable(f"{root} holds no data set that is known{passed}; looked for {looked}"))
