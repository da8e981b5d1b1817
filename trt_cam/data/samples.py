"""What every data set is: a sequence of samples, read from its lists when it is first used, that can check itself."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar, overload

import numpy as np
import numpy.typing as npt

from trt_cam.data.audit import audit, check_rows
from trt_cam.data.problems import Folder, Problem, Report, collect, ignore, stop
from trt_cam.data.table import Table, Texts
from trt_cam.errors import DatasetError, InputError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Sample:
    """One photo, with what is known of it.

    Attributes
    ----------
    id
        Unique in its data set, as the lists hold it, with forward slashes.
    path
        Of the picture, which may be missing: it is not looked at.
    label
        Class, from 0; None if unknown.
    boxes : (G, 4) float64
        ``x0, y0, x1, y1`` as the lists hold them, in pixels of ``size``; G = 0 for none. Whether the far corners are
        pixels of the object is the data set's ``inclusive``.
    size : (H, W) or None
        Of the photo that the boxes refer to; the stored picture may be a smaller copy. None: of the picture.
    masks
        Pictures that are not black where the object is, one for each instance.
    ignore
        Picture that is not black where an answer counts for nothing.
    """

    id: str
    path: Path
    label: int | None
    boxes: npt.NDArray[np.float64]
    size: tuple[int, int] | None
    masks: tuple[Path, ...] = ()
    ignore: Path | None = None


class DataSet(Sequence[Sample]):
    """Base of all readers: a subclass finds its splits and fills a `Table`.

    Lists are read once, when the first sample, label or length is asked for; pictures are never opened. The first
    problem in a list is then a `DatasetError` with file and line, and `problems` lists all of them.

    Parameters
    ----------
    root
        The folder that the archives were unpacked in. No file outside it is opened, through a link neither.
    split
        Which part; None for the only one.
    photos_root
        Folder of the photos, where they lie elsewhere.
    """

    kind: ClassVar[str]
    needs: ClassVar[str]  # what lies in a folder of this kind, for the error that finds none
    inclusive: ClassVar[bool] = False  # whether a box's far corner is a pixel of the object

    def __init__(self, root: str | Path, split: str | None = None, *, photos_root: str | Path | None = None) -> None:
        self.root = existing_folder(root)
        self.photos_root = existing_folder(photos_root) if photos_root is not None else None
        self._asked = split

    @classmethod
    @abstractmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        """The splits that lie in a folder; empty if it is none of this kind. A whole without splits is ``("all",)``."""

    @abstractmethod
    def read(self, table: Table, report: Report) -> None:
        """Add every photo of the split to the table, and go on after a report."""

    @property
    def name(self) -> str:
        """Of the data set, for titles and results."""
        return self.root.resolve().name

    @cached_property
    def split(self) -> str:
        """The part that was asked for, or the only one."""
        there, asked = self.splits(), self._asked
        if not there:
            raise DatasetError(f"{self.root} is no data set of kind {self.kind}: needs {self.needs}")
        if asked is None and len(there) > 1:
            raise InputError(f"{self.root} has the splits {', '.join(there)}; name one with split=")
        if asked is not None and asked not in there:
            raise InputError(f"{self.root} has no split {asked!r}; it has {', '.join(there)}")
        return there[0] if asked is None else asked

    @cached_property
    def photos(self) -> Folder:
        """The folder that the photos' names begin in."""
        return Folder(self.photos_root) if self.photos_root is not None else self.find_photos()

    def find_photos(self) -> Folder:
        """The folder that the photos' names begin in, where none is given."""
        return Folder(self.root)

    @property
    def masks(self) -> Folder:
        """The folder that the masks' names begin in."""
        return self.photos

    def splits(self) -> tuple[str, ...]:
        """The splits of this data set."""
        return self.find(self.root)

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        table, row = self._table, range(len(self))[index]
        place = table.places[row]
        return Sample(
            id=table.ids[row],
            path=self.photos.path(table.name(row), *place),
            label=table.labels[row] if table.labels[row] >= 0 else None,
            boxes=table.boxes(row),
            size=table.size(row),
            masks=tuple(self.masks.path(name, *place) for name in table.masks.get(row, ())),
            ignore=self.masks.path(table.ignore[row], *place) if row in table.ignore else None,
        )

    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) class of each sample, -1 where unknown."""
        return np.array(self._table.labels, dtype=np.int64)

    @property
    def ids(self) -> Texts:
        """The samples' ids."""
        return self._table.ids

    def photo_name(self, index: int) -> str:
        """The name of a sample's picture below the folder of photos, with forward slashes; no file is looked at."""
        return self._table.name(range(len(self))[index])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names or WordNet ids of the classes, by label; None if the lists hold numbers only."""
        return tuple(self._table.classes) or None

    @property
    def num_classes(self) -> int:
        """How many classes there are: those that are named, else up to the highest label."""
        return len(self._table.classes) or int(self.labels().max(initial=-1)) + 1

    def problems(self, *, pictures: bool = False) -> Iterator[Problem]:
        """All that is missing or broken, in lists, photos and masks.

        Parameters
        ----------
        pictures
            Open every picture too.
        """
        found: list[Problem] = []
        table = self._read(collect(found.append))
        yield from found
        yield from audit(table, self.photos, self.masks, pictures=pictures, inclusive=self.inclusive)

    def counts(self) -> dict[str, int]:
        """Samples, classes that occur, boxes, masks, and samples without either, as far as the lists can be read."""
        table = self.__dict__.get("_table") or self._read(ignore)
        labels = np.array(table.labels, dtype=np.int64)
        masks = np.zeros(len(table), dtype=np.int64)
        for row, names in table.masks.items():
            masks[row] = len(names)
        return {
            "samples": len(table),
            "classes": len(np.unique(labels[labels >= 0])),
            "boxes": int(table.counts.sum()),
            "masks": int(masks.sum()),
            "without": int((table.counts + masks == 0).sum()),
        }

    @cached_property
    def _table(self) -> Table:
        return self._read(stop)

    def _read(self, report: Report) -> Table:
        table = Table(self.root, report)
        self.read(table, report)
        table.seal()
        check_rows(table, report, self.split, inclusive=self.inclusive)
        return table

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, split={self._asked!r})"


def choose(root: Path, there: Mapping[str, T], name: str | None, of: str = "") -> T | None:
    """Of the data sets in a folder, by name, the one asked for or the only one; None if there is none.

    Raises
    ------
    InputError
        None has that name, or there are several and none was named; ``of`` says in front of names what they are of.
    """
    if name is not None and name not in there:
        raise InputError(f"{root} has no {of}{name!r}; it has {', '.join(there) or 'none'}")
    if name is None and len(there) > 1:
        raise InputError(f"{root} has {of}{', '.join(there)}; name one with name=")
    return there[name or next(iter(there))] if there else None


def existing_folder(path: str | Path) -> Path:
    """A path that must be a folder.

    Raises
    ------
    InputError
        It is none, or no path at all.
    """
    folder = Path(os.path.expanduser(path))  # pathlib's raises for users that are not known, and is_dir for long names
    if not os.path.isdir(folder):
        raise InputError(f"{str(path)!r} is no folder; give the one that the data set was unpacked in")
    return folder
