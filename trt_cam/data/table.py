"""A data set's lists in a few flat arrays: no Python object for a photo or a box, so millions of them stay small."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from trt_cam.data.problems import Report, ignore, unsafe

Place = tuple[Path | None, int | None]  # a file and a line of it; no file: the picture itself


class Texts(Sequence[str]):
    """Strings as one run of bytes: 8 bytes each beside their letters."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one at the end."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogatepass")


class Places:
    """A place for each row."""

    def __init__(self) -> None:
        self._files: list[Path | None] = []
        self._numbers: dict[Path | None, int] = {}
        self._rows = array("i")

    def append(self, place: Place) -> None:
        """Add one at the end."""
        file, line = place
        if file not in self._numbers:
            self._numbers[file] = len(self._files)
            self._files.append(file)
        self._rows.append(self._numbers[file])
        self._rows.append(line or 0)

    def __getitem__(self, row: int) -> Place:
        return self._files[self._rows[2 * row]], self._rows[2 * row + 1] or None


class Table:
    """The rows that a reader adds, then looked up by number.

    Attributes
    ----------
    classes
        Names, by label; empty while none are known.
    source
        The main list, for what concerns all of the data set.
    refused
        Rows with a name that may not be opened; they were reported.
    """

    def __init__(self, source: Path, report: Report) -> None:
        self.source, self._report = source, report
        self.ids, self._names = Texts(), Texts()
        self.labels, self._sizes = array("i"), array("i")
        self.places, self.box_places = Places(), Places()
        self.box_rows, self._corners = array("i"), array("d")
        self.masks: dict[int, list[str]] = {}
        self.ignore: dict[int, str] = {}
        self.refused: set[int] = set()
        self.classes: list[str] = []
        self.class_places: list[Place] = []

    def add(
        self, id: str, place: Place, label: int = -1, size: tuple[int, int] | None = None, name: str | None = None
    ) -> int:
        """Add a photo.

        Parameters
        ----------
        id
            Its name in results.
        place
            Where it was read.
        label
            From 0; -1 for none.
        size : (H, W) or None
            That its boxes refer to.
        name
            Of its file below the folder of photos; None if that is the id.

        Returns
        -------
        Its row, from 0.
        """
        self.ids.append(id)
        self._names.append("" if name is None or name == id else name)
        self.labels.append(label)
        self._sizes.extend(size or (0, 0))
        self.places.append(place)
        row = len(self.labels) - 1
        self._check(row, id if name is None else name)
        return row

    def add_box(self, row: int, corners: Sequence[float], place: Place) -> None:
        """Add a box ``x0, y0, x1, y1`` of a photo; those of one photo need not follow each other."""
        self.box_rows.append(row)
        self._corners.extend(corners)
        self.box_places.append(place)

    def add_mask(self, row: int, name: str, ignore: str = "") -> None:
        """Add the file of an instance's mask, and that of the photo's ignored region."""
        self.masks.setdefault(row, []).append(name)
        self._check(row, name)
        if ignore:
            self.ignore[row] = ignore
            self._check(row, ignore)

    def _check(self, row: int, name: str) -> None:
        if reason := unsafe(name):
            self.refused.add(row)
            file, line = self.places[row]
            self._report(file or self.source, line, reason)

    def add_class(self, name: str, place: Place) -> int:
        """Add a class and return its label."""
        self.classes.append(name)
        self.class_places.append(place)
        return len(self.classes) - 1

    def set_size(self, row: int, size: tuple[int, int]) -> None:
        """Set the (H, W) that a photo's boxes refer to."""
        self._sizes[2 * row : 2 * row + 2] = array("i", size)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """The photo's file below the folder of photos."""
        return self._names[row] or self.ids[row]

    def size(self, row: int) -> tuple[int, int] | None:
        """(H, W), None if unknown."""
        height, width = self._sizes[2 * row], self._sizes[2 * row + 1]
        return (height, width) if height else None

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) heights and widths, 0 where unknown."""
        return np.array(self._sizes, dtype=np.int32).reshape(-1, 2)

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """(M, 4) boxes of all photos, in the order they were added."""
        return np.array(self._corners, dtype=np.float64).reshape(-1, 4)

    @cached_property
    def _by_row(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        rows = np.array(self.box_rows, dtype=np.int64)
        return self.corners[np.argsort(rows, kind="stable")], np.searchsorted(np.sort(rows), np.arange(len(self) + 1))

    def boxes(self, row: int) -> npt.NDArray[np.float64]:
        """(G, 4) boxes of one photo."""
        corners, starts = self._by_row
        return corners[starts[row] : starts[row + 1]].copy()

    def seal(self) -> None:
        """No more is added: what only the reading needs is let go."""
        self._report = ignore

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(N,) boxes of each photo."""
        return np.diff(self._by_row[1])
