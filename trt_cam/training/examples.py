"""What of a data set is trained on, checked before anything starts, and a part split off to choose by."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trt_cam.data.catalog import find_kind, load_dataset
from trt_cam.data.problems import quoted
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError
from trt_cam.ops._checks import check_count


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of a data set with their labels.

    Attributes
    ----------
    data
        Where the photos are.
    rows : (N,) int64
        Places in the data set.
    labels : (N,) int64
        The model's class of each row.
    classes
        Names of the data set's classes, by its own labels; numbers where it has no names.
    """

    data: DataSet
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: DataSet, indices: npt.NDArray[np.int64] | None = None) -> Examples:
        """All labelled rows of a data set.

        Parameters
        ----------
        data
            With labels; where a photo is listed for several classes, each is a row.
        indices : (K',) int64 or None
            The model's class of each of the data set's, as `evaluation.class_indices` gives it, where the model keeps
            its classifier. None: the data set's classes are the model's.

        Raises
        ------
        DatasetError
            No photo has a label, a class no photo, or there is one class only.
        InputError
            A label has no class of the model.
        """
        labels = data.labels()
        rows = np.flatnonzero(labels >= 0)
        names = data.classes or tuple(str(label) for label in range(data.num_classes))
        if not len(rows):
            raise DatasetError(
                f"training needs labels, but none of {len(labels)} photos in {data.root} has one; put the photos of "
                "each class in a folder of its own"
            )
        if data.classes is not None or indices is None:
            _check_filled(data, labels[rows], names)
        if len(present := np.unique(labels[rows])) < 2:
            raise DatasetError(
                f"training needs at least two classes to tell apart, but all photos in {data.root} are of "
                f"{quoted(names[present[0]])}"
            )
        known = labels[rows] if indices is None else _translated(data, rows, names, indices)
        return cls(data, rows, known, names)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: npt.NDArray[np.int64]) -> Examples:
        """Only the rows at some places."""
        return replace(self, rows=self.rows[places], labels=self.labels[places])

    def alike(self, place: int) -> npt.NDArray[np.int64]:
        """The places of all rows of the same class, from this one on and then round to it."""
        same = np.flatnonzero(self.labels == self.labels[place])
        return np.roll(same, -int(np.searchsorted(same, place)))


def open_examples(data: DataSet | str | os.PathLike[str], *, kind: str = "auto", split: str | None = None) -> Examples:
    """All labelled photos of a data set or of a folder.

    Parameters
    ----------
    data
        From ``load_dataset``, or its folder.
    kind, split
        As in ``load_dataset``, but of several splits "train" is taken where none is named.
    """
    if not isinstance(data, DataSet):
        reader = find_kind(Path(data), kind)
        if split is None and "train" in (there := reader.find(Path(data).expanduser())) and len(there) > 1:
            split = "train"
        data = load_dataset(Path(data), reader, split)
    return Examples.of(data)


def split_off(examples: Examples, share: float, seed: int = 0) -> tuple[Examples, Examples]:
    """Training photos, and a share of each class to choose by.

    Parameters
    ----------
    examples
        To be divided.
    share : in (0, 0.5]
        Of each class, rounded; at least one photo where a class has two. A photo that is listed for several classes
        goes with all of them, and only where each of them can spare it.
    seed
        Of the choice.

    Returns
    -------
    The larger and the smaller part; no photo is in both.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 0.5:
        raise InputError(f"the share to choose by must be above 0 and at most 0.5, got {share!r}")
    check_count(seed, "seed", 0)
    counts = np.bincount(examples.labels)
    wanted = np.maximum(np.minimum(np.maximum(np.rint(counts * share), 1), counts - 1), 0)
    photos: dict[str, list[int]] = {}
    for place, row in enumerate(examples.rows.tolist()):
        photos.setdefault(examples.data.photo_name(row), []).append(place)
    listed = list(photos.values())
    chosen = np.zeros(len(examples), dtype=bool)
    for number in np.random.default_rng(seed).permutation(len(listed)).tolist():
        needed = np.bincount(examples.labels[listed[number]], minlength=len(wanted))
        if (wanted >= needed).all():
            wanted -= needed
            chosen[listed[number]] = True
    return examples.at(np.flatnonzero(~chosen)), examples.at(np.flatnonzero(chosen))


def _check_filled(data: DataSet, labels: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DatasetError(
            f"training needs photos of each class, but {quoted(names[empty[0]])}{more} of {len(names)} in {data.root} "
            "has none; add photos, or take it out"
        )


def _translated(
    data: DataSet, rows: npt.NDArray[np.int64], names: tuple[str, ...], indices: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    theirs = data.labels()[rows]
    of_model = np.full(max(len(names), len(indices)), -1)
    of_model[: len(indices)] = indices
    labels = of_model[theirs]
    if (labels < 0).any():
        place = int(np.argmin(labels))
        raise InputError(
            f"each label must be one of the model's classes, but {quoted(data.ids[int(rows[place])])} is of class "
            f"{quoted(names[theirs[place]])}, which is none; give classes, the model's class for each by name, or "
            "train a new head"
        )
    return labels
