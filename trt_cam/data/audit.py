"""The checks that are the same for every kind of data set: boxes, names, files, classes, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_cam.data.problems import Folder, Problem, Report
from trt_cam.data.table import Table
from trt_cam.errors import InputError

# Rounding and the two readings of a far corner put boxes one pixel over the edge in the published lists themselves.
SLACK = 1


def check_rows(table: Table, report: Report, split: str, *, inclusive: bool) -> None:
    """Report an empty split, and boxes that cannot be meant."""
    if not len(table):
        report(table.source, None, f"has no photo in split {split}")
    rows = np.array(table.box_rows, dtype=np.int64)
    for box, why in bad_boxes(table.corners, table.sizes[rows], inclusive=inclusive):
        file, line = table.box_places[box]
        report(file or table.source, line, f"{table.ids[rows[box]]}: {why}")


def bad_boxes(
    corners: npt.NDArray[np.float64], sizes: npt.NDArray[Any], *, inclusive: bool
) -> Iterator[tuple[int, str]]:
    """The boxes that are inverted or leave their photo, and why.

    Parameters
    ----------
    corners : (M, 4)
        ``x0, y0, x1, y1``.
    sizes : (M, 2)
        Height and width of each one's photo; 0 where unknown.
    inclusive
        Whether the far corner is a pixel of the object.
    """
    near, far = corners[:, :2], corners[:, 2:]
    over = (near < -SLACK) | (far + inclusive > sizes[:, ::-1] + SLACK)  # (M, 2)
    inverted, outside = np.any(far < near, axis=1), np.any(over, axis=1) & (sizes[:, 0] > 0)
    for box in np.flatnonzero(inverted | outside).tolist():
        shown = "box " + " ".join(f"{value:g}" for value in corners[box])
        if inverted[box]:
            yield box, f"{shown} is inverted; needs x0 <= x1 and y0 <= y1"
        else:
            yield box, f"{shown} leaves the photo, which is {sizes[box, 1]} wide and {sizes[box, 0]} high"


def audit(table: Table, photos: Folder, masks: Folder, *, pictures: bool, inclusive: bool) -> Iterator[Problem]:
    """What can be wrong beside the lists themselves.

    Parameters
    ----------
    table
        As read, with as much as could be read.
    photos, masks
        The folders that names begin in.
    pictures
        Whether to open the pictures.
    inclusive
        As in `bad_boxes`.
    """
    yield from _classes(table)
    yield from _thin_boxes(table, inclusive)
    counts, some = table.counts, bool(table.counts.any() or table.masks)
    last = ""
    for row in (row for row in range(len(table)) if row not in table.refused):
        file, line = table.places[row]
        before, last = last, table.name(row)
        if last == before and table.size(row):  # the same photo, for another class
            continue
        for message in _row(table, row, photos, masks, pictures, inclusive):
            yield Problem(file or photos.at(table.name(row)), line, message)
        if some and table.labels[row] >= 0 and not counts[row] and row not in table.masks:
            yield Problem(file or photos.at(table.name(row)), line, f"{table.ids[row]} has no box, others have")


def _row(table: Table, row: int, photos: Folder, masks: Folder, pictures: bool, inclusive: bool) -> Iterator[str]:
    files = [(photos, table.name(row), "photo"), *((masks, name, "mask") for name in table.masks.get(row, ()))]
    if row in table.ignore:
        files.append((masks, table.ignore[row], "ignored region"))
    for folder, name, what in files:
        path = folder.at(name)
        if why := folder.why_not(name) or ("" if path.stat().st_size else "is empty (0 bytes)"):
            yield f"{what} {path}: {why}"
        elif pictures:
            yield from _picture(table, row, path, what, inclusive)


def _classes(table: Table) -> Iterator[Problem]:
    labels = np.array(table.labels, dtype=np.int64)
    counts = np.bincount(labels[labels >= 0], minlength=len(table.classes))
    for label, name in enumerate(table.classes):
        if not counts[label]:
            file, line = table.class_places[label]
            yield Problem(file or table.source, line, f"class {name} has no photo")


def _thin_boxes(table: Table, inclusive: bool) -> Iterator[Problem]:
    if inclusive:  # a box that begins and ends at a pixel holds that pixel
        return
    corners = table.corners
    for box in np.flatnonzero((corners[:, 2:] == corners[:, :2]).any(axis=1)).tolist():
        file, line = table.box_places[box]
        shown = " ".join(f"{value:g}" for value in corners[box])
        yield Problem(file or table.source, line, f"{table.ids[table.box_rows[box]]}: box {shown} has no area")


def _picture(table: Table, row: int, path: Path, what: str, inclusive: bool) -> Iterator[str]:
    from trt_cam.data.photos import open_photo

    try:
        height, width = open_photo(path).size
    except InputError as error:
        yield f"{what} {error}"
        return
    size = table.size(row)
    if what != "photo":
        return
    if size is None:
        boxes = table.boxes(row)
        for _, why in bad_boxes(boxes, np.tile([height, width], (len(boxes), 1)), inclusive=inclusive):
            yield f"{table.ids[row]}: {why}"
    elif _alike((height, width), size[::-1]) and not _alike((height, width), size):
        yield f"photo {path} is {width} wide and {height} high, its boxes are for {size[1]} by {size[0]}: it is turned"


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes have the same proportions, up to the rounding of a smaller copy's sides."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(other)
