"""Rows of evaluated photos: added one by one, merged across processes in any order, kept in a file without pickle."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from trt_cam.data.problems import quoted
from trt_cam.errors import DatasetError, InputError, OutputError

# By the share of the photo that the largest object covers: from the first number to below the second.
SIZES = {
    "small": (0.0, 0.4),
    "below 0.1": (0.0, 0.1),
    "0.1 to 0.25": (0.1, 0.25),
    "0.25 to 0.4": (0.25, 0.4),
    "0.4 and more": (0.4, np.inf),
}


@dataclass(frozen=True)
class Table:
    """N photos, sorted by index, every array with one row for each.

    Attributes
    ----------
    index : (N,) int64
        Place in the data set's list: the same in every process and for every method.
    name : (N,) str
        Id in that list.
    share : (N,) float64, in [0, 1]
        Of the photo that its object covers.
    """

    index: NDArray[np.int64]
    name: NDArray[np.str_]
    share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The photos where ``rows`` (N,) is True."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def by_size(self) -> dict[str, NDArray[np.bool_]]:
        """Which photos (N,) belong to each of `SIZES`."""
        return {name: (self.share >= low) & (self.share < high) for name, (low, high) in SIZES.items()}

    def split(self) -> Iterator[Self]:
        """One table for each photo."""
        for row in range(len(self)):
            yield type(self)(**{field.name: getattr(self, field.name)[row : row + 1] for field in fields(self)})


Rows = TypeVar("Rows", bound=Table)


class Accumulator(ABC, Generic[Rows]):
    """Photos by their index. Subclasses say how one is added, and in `head` what all of them have in common."""

    kind: ClassVar[type[Table]]
    schema: ClassVar[int] = 1

    def __init__(self) -> None:
        self._rows: dict[int, Rows] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @abstractmethod
    def head(self) -> dict[str, NDArray[Any]]:
        """The settings under which photos were measured, as arrays."""

    @classmethod
    @abstractmethod
    def from_head(cls, head: Mapping[str, NDArray[Any]]) -> Self:
        """An empty one with these settings."""

    def merge(self, other: Self) -> None:
        """Take over another process's photos; whatever the order, the figures are the same to the last digit.

        Raises
        ------
        InputError
            The other was made with other settings.
        DatasetError
            Both have the same photo.
        """
        ours, theirs = self.head(), other.head()
        if differing := [name for name in ours if not np.array_equal(ours[name], theirs.get(name, ()))]:
            raise InputError(f"results of equal settings can be merged, but {' and '.join(differing)} differ")
        if both := self._rows.keys() & other._rows.keys():
            raise DatasetError(f"photos must be evaluated once, but {len(both)} are in both, index {min(both)} first")
        self._rows |= other._rows

    def table(self) -> Rows:
        """All photos.

        Raises
        ------
        DatasetError
            There is none.
        """
        if not self._rows:
            raise DatasetError("figures need at least one photo, got an empty split; look at its lists")
        rows = [self._rows[index] for index in sorted(self._rows)]
        names = [field.name for field in fields(rows[0])]
        return type(rows[0])(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in names})

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it as plain arrays, for ``np.savez`` or another process."""
        state = {"schema": np.array(self.schema)} | self.head()
        if self._rows:
            table = self.table()
            state |= {field.name: getattr(table, field.name) for field in fields(table)}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """What `state` was taken of.

        Raises
        ------
        InputError
            The arrays are not those of `state`, or of another version.
        """
        wanted = [field.name for field in fields(cls.kind)]
        try:
            if (schema := int(state["schema"])) != cls.schema:
                raise InputError(f"results of version {cls.schema} were needed, got version {schema}")
            results = cls.from_head(state)
            if "index" in state:
                rows = cls.kind(**{name: state[name] for name in wanted}).split()
                results._rows = {int(row.index[0]): row for row in rows}  # type: ignore[misc]
        except InputError:
            raise
        except (KeyError, IndexError, TypeError, ValueError) as error:
            came = f"others: {type(error).__name__}, {quoted(str(error))}"
            raise InputError(f"the arrays of {cls.__name__}.state() were needed, got {came}") from None
        return results

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        try:
            with open(path, "wb") as file:
                np.savez_compressed(file, **self.state())  # type: ignore[arg-type]
        except OSError as error:
            why = error.strerror or error
            raise OutputError(f"cannot write {os.fspath(path)} ({why}); give a place that can be written") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            The file is missing, damaged, or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                state = dict(arrays)
        except Exception as error:  # the readers of damaged files raise nearly anything, and quote all of the file
            raise InputError(f"{os.fspath(path)} must be results that save() wrote, got {quoted(str(error))}") from None
        return cls.from_state(state)

    def _put(self, row: Rows) -> None:
        index = int(row.index[0])
        if index in self._rows:
            before, now = self._rows[index].name[0], row.name[0]
            raise DatasetError(f"photos must be added once, but {now!s} has index {index}, and so has {before!s}")
        self._rows[index] = row


def checked_thresholds(thresholds: Any) -> NDArray[np.float64]:
    """(T,) rising within [0, 1)."""
    found = np.asarray(thresholds, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not ((found >= 0) & (found < 1)).all() or (np.diff(found) <= 0).any():
        raise InputError(f"thresholds must rise within [0, 1), got {np.array2string(found, threshold=6)}")
    return found
