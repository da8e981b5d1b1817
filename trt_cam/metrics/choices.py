"""Where thresholds come from, and what each photo adds to a score at them.

Three ways to a threshold, and three different figures: *fixed* beforehand; chosen on another split, *from-val*
(`search_threshold`); the *best* on the photos reported, which is how the field compares and nobody can have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trt_cam.errors import InputError
from trt_cam.metrics.localization import passes
from trt_cam.metrics.protocols import IOUS, Source
from trt_cam.metrics.records import BoxTable, LocalizationResults

PERCENT = tuple(f"{iou * 100:.0f}" for iou in IOUS)  # "30", "50", "70"
BOX = IOUS.index(0.5)  # whose threshold draws the one box of GT-known, Top-1 and Top-5 Loc and the errors


@dataclass(frozen=True)
class Thresholds:
    """Thresholds and where they were chosen.

    Attributes
    ----------
    source
        "fixed", "from-val" or "best".
    split
        The name of the photos they were chosen on; "" for fixed ones.
    one, every
        For the largest contour's box and for any contour's, at IoU 0.3, 0.5 and 0.7.
    """

    source: Source
    split: str
    one: tuple[float, ...]
    every: tuple[float, ...]


def search_threshold(results: LocalizationResults, *, split: str = "val") -> Thresholds:
    """Thresholds that are best on one split, to be used on another.

    Parameters
    ----------
    results
        Of photos that are not the ones reported.
    split
        Their name, which figures at these thresholds will carry.

    Returns
    -------
    Thresholds
        Of equally good ones the lowest.

    Raises
    ------
    DatasetError
        There is no photo.
    """
    return best_thresholds(results.table(), results.thresholds, "from-val", split)


def best_thresholds(table: BoxTable, thresholds: NDArray[np.float64], source: Source, split: str) -> Thresholds:
    """The threshold at which most photos of a table are right, for each IoU."""

    def best(ious: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float(thresholds[(ious >= least).sum(axis=0).argmax()]) for least in IOUS)

    return Thresholds(source, split, best(table.largest), best(table.every))


def resolve(threshold: float | str | Thresholds, table: BoxTable, results: LocalizationResults) -> Thresholds:
    """What was asked for as thresholds, if the protocol takes them from there."""
    if isinstance(threshold, Thresholds):
        found = threshold
    elif threshold == "best":
        found = best_thresholds(table, results.thresholds, "best", "the photos reported")
    elif isinstance(threshold, (int, float)) and not isinstance(threshold, bool):
        found = Thresholds("fixed", "", (float(threshold),) * len(IOUS), (float(threshold),) * len(IOUS))
    else:
        raise InputError(f"threshold must be a number, 'best' or found by search_threshold, got {threshold!r}")
    if found.source not in results.protocol.sources:
        raise InputError(
            f"protocol {results.protocol.name!r} takes a threshold that is {' or '.join(results.protocol.sources)}, "
            f"got one that is {found.source}; see get_protocol"
        )
    return found


def outcomes(table: BoxTable, results: LocalizationResults, chosen: Thresholds) -> dict[str, NDArray[np.int64]]:
    """What each photo adds to a score, (N,) of 0 and 1; of 0 to 3 for ``maxboxacc_v2``, a mean over three IoUs."""
    one = [table.largest[:, position(results.thresholds, tau)] for tau in chosen.one]
    every = [table.every[:, position(results.thresholds, tau)] for tau in chosen.every]
    found = {f"gt_known_{name}": iou >= least for name, iou, least in zip(PERCENT, one, IOUS, strict=True)}
    found["maxboxacc"] = found[f"gt_known_{PERCENT[BOX]}"]
    found |= {f"any_box_{name}": iou >= least for name, iou, least in zip(PERCENT, every, IOUS, strict=True)}
    found["maxboxacc_v2"] = np.sum([found[f"any_box_{name}"] for name in PERCENT], axis=0)
    if (table.classes[:, 0] >= 0).all():
        same = table.classes == table.label[:, None]  # (N, 5)
        right = passes(one[BOX], results.protocol)
        for name, cls in (("top1", same[:, 0]), ("top5", same.any(axis=1))):
            found |= {f"{name}_cls": cls, f"{name}_loc": cls & right}
    return {name: values.astype(np.int64) for name, values in found.items()}


def outcomes_per_photo(score: str) -> int:
    """What one photo can add to a score at most: 1, or 1 for each IoU where it is a mean over them, named ``_v2``."""
    return len(IOUS) if score.endswith("_v2") else 1


def position(thresholds: NDArray[np.float64], wanted: float) -> int:
    """Where a threshold stands in a list."""
    near = np.flatnonzero(np.abs(thresholds - wanted) < 1e-9)
    if not len(near):
        raise InputError(
            f"threshold {wanted:g} is not among the {len(thresholds)} evaluated, {thresholds[0]:g} to "
            f"{thresholds[-1]:g}; make LocalizationResults with thresholds=[{wanted:g}]"
        )
    return int(near[0])
