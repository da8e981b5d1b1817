"""The photos that a page shows: each method's best, median and worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.data.samples import DataSet, Sample
from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.accumulator import Table
from trt_cam.metrics.records import BoxTable
from trt_cam.report.drawn import CELLS, SIDE, as_text, boxes_of, cells, distinct, object_outline, thumbnail
from trt_cam.report.recorded import Recorded

PHOTOS = 8  # in each list, where the page stays within BUDGET
BUDGET = 11_000_000  # bytes of all photos with their maps and boxes
_THUMBNAIL = 20_000  # bytes of one photo, as text

Lists = list[dict[str, NDArray[np.int64]]]


@dataclass
class Gallery:
    """What the page needs of the photos that it shows, as JSON holds it.

    Attributes
    ----------
    photos
        Each with its ``id``, the ``name`` of its class, ``thumb`` (a data URI; None where it could not be read), the
        ``size`` (width, height) that its boxes refer to, whose sides it is shown with, ``truth`` (boxes on the
        protocol's grid, or an outline), and for each method ``heat`` and, not for masks, ``boxes``, the name of the
        class ``predicted``, and whether that is ``right`` or not known.
    lists
        For each method its ``best``, ``median`` and ``worst`` photos, as places in ``photos``.
    unreadable
        Why photos could not be read.
    """

    photos: list[dict[str, Any]] = field(default_factory=list)
    lists: list[dict[str, list[int]]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def gallery(run: Recorded, data: DataSet, count: int | None = None) -> Gallery:
    """Choose photos and collect what is drawn of them.

    Parameters
    ----------
    data
        What was evaluated; the photos that are shown are opened.
    count
        Photos in each list; None is `PHOTOS`, or fewer where the page would grow beyond `BUDGET`.

    Raises
    ------
    DatasetError
        The data set holds other photos than the run.
    """
    tables = run.tables
    check_photos(tables[0], data)
    quality = np.stack([run.quality(number) for number in range(len(tables))])  # (methods, N)
    lists = fitting(run, quality) if count is None else ranked(quality, count)
    shown = rows_of(lists)
    place = {row: number for number, row in enumerate(shown)}
    places = [{name: [place[row] for row in one.tolist()] for name, one in each.items()} for each in lists]
    found = Gallery(lists=places)
    wanted = {int(tables[0].index[row]): row for row in shown}
    photos, masks = {}, not isinstance(tables[0], BoxTable)
    for arrays in run.parts():
        for at, index in enumerate(arrays.get("0/index", np.array([])).tolist()):
            if index in wanted:
                row = wanted[index]
                photos[row] = _measured(run, row, arrays, at, data) | _picture(data[index], masks, found.unreadable)
    found.photos = [photos[row] for row in shown]
    return found


def check_photos(table: Table, data: DataSet) -> None:
    """Require a data set that holds a run's photos in their places."""
    for at, wanted in zip(table.index.tolist(), table.name.tolist(), strict=True):
        held = data.ids[at] if at < len(data) else None
        if held != wanted:
            came = f"it is {held!r}" if held is not None else "there are fewer"
            raise DatasetError(f"{data.root} holds other photos than the run: number {at} was {wanted!r}, here {came}")


def ranked(quality: NDArray[np.float64], count: int) -> Lists:
    """Rows of each method's best, median and worst photos by ``quality`` (methods, N); NaN is in no list."""
    found = []
    for one in quality:
        order = np.argsort(-one, kind="stable")[: np.isfinite(one).sum()]
        middle = max((len(order) - count) // 2, 0)
        found.append({"best": order[:count], "median": order[middle:][:count], "worst": order[::-1][:count]})
    return found


def rows_of(lists: Lists) -> list[int]:
    """All rows that occur in them, ascending."""
    return sorted({row for each in lists for one in each.values() for row in one.tolist()})


def fitting(run: Recorded, quality: NDArray[np.float64]) -> Lists:
    """`ranked`, as many photos as `PHOTOS` and `BUDGET` allow."""
    firsts, _ = distinct(run.results[0].thresholds)
    grid = next(arrays["0/maps"].shape[1:] for arrays in run.parts() if "0/maps" in arrays)
    each = min(grid[0], CELLS) * min(grid[1], CELLS) + 6 * len(firsts)
    size = _THUMBNAIL + len(quality) * each * 4 / 3  # of a photo under all methods
    fits = (lists for n in range(PHOTOS, 1, -1) if len(rows_of(lists := ranked(quality, n))) * size <= BUDGET)
    return next(fits, None) or ranked(quality, 1)


def _picture(sample: Sample, masks: bool, unreadable: list[str]) -> dict[str, Any]:
    """What its files hold; what is wrong with them is said, not raised."""
    found: dict[str, Any] = {"id": sample.id, "thumb": None, "size": [SIDE, SIDE]}
    try:
        found["thumb"], size = thumbnail(sample)
        found["size"] = list(sample.size[::-1] if sample.size else size)
        return found | ({"truth": object_outline(sample)} if masks else {})
    except InputError as error:
        unreadable.append(str(error))
        return found


def _measured(run: Recorded, row: int, arrays: Mapping[str, NDArray[Any]], at: int, data: DataSet) -> dict[str, Any]:
    """What every method makes of one photo, which is row ``at`` of the batch ``arrays``."""
    tables = run.tables
    sample = data[int(tables[0].index[row])]
    theirs = data.classes[sample.label] if data.classes and sample.label is not None else None
    maps = [arrays[f"{number}/maps"][at] for number in range(len(tables))]
    found: dict[str, Any] = {"heat": [cells(one) for one in maps]}
    if not isinstance(tables[0], BoxTable):
        return found | {"name": theirs or "", "truth": ""}
    names = run.metrics.get("classes", {})
    label, end = int(tables[0].label[row]), int(tables[0].boxes[: row + 1].sum())
    found["truth"] = tables[0].truth[end - int(tables[0].boxes[row]) : end].tolist()
    found["boxes"] = [
        as_text(boxes_of(results.protocol, evidence, table, row, results.thresholds))
        for results, evidence, table in zip(run.results, maps, tables, strict=True)
    ]
    own = {label: names.get(str(label)) or theirs or f"class {label}"}
    predicted = [int(table.classes[row, 0]) for table in tables]
    found["predicted"] = [own.get(one) or names.get(str(one)) or f"class {one}" for one in predicted]
    found["right"] = [one < 0 or one == label for one in predicted]
    return found | {"name": own[label]}
