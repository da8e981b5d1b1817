"""Boxes of one heat map at every threshold in one pass, with the results of the published evaluators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trt_cam.errors import InputError
from trt_cam.ops import _trees
from trt_cam.ops._checks import check_choice
from trt_cam.ops.boxes import Select, as_maps, grey_levels

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ThresholdBoxes:
    """Boxes of a map at T thresholds, once per distinct grey level that these come down to.

    Attributes
    ----------
    levels : (L,) int64, ascending
        Grey levels; foreground is above them.
    boxes : (K, 4) int64
        x0, y0, x1, y1, far edge exclusive: those of the first level, then those of the next.
    offsets : (L + 1,) int64
        Level l has ``boxes[offsets[l] : offsets[l + 1]]``.
    index : (T,) int64
        Each threshold's place in ``levels``.
    """

    levels: NDArray[np.int64]
    boxes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    index: NDArray[np.int64]

    def at(self, t: int) -> NDArray[np.int64]:
        """Boxes (M, 4) at threshold number ``t``."""
        level = self.index[t]
        return self.boxes[self.offsets[level] : self.offsets[level + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of boxes at each threshold, (T,)."""
        return np.diff(self.offsets)[self.index]


def boxes_at_thresholds(heat: Array, thresholds: ArrayLike, *, select: Select = "largest") -> ThresholdBoxes:
    """Boxes of a heat map at each of many thresholds, in about the time of a few.

    At every threshold the boxes of ``boxes_from_map`` with its own defaults, in the same order. The extra ``fast``
    (numba) makes it about ten times as fast; the first call then compiles for some seconds, once per machine.

    Parameters
    ----------
    heat : (H, W), in [0, 1], or uint8
        A heat map, truncated to 256 grey levels in its own precision; or grey levels as they are.
    thresholds : (T,), in [0, 1)
        Foreground are the grey levels above ``int(threshold * max)``, the product taken in float64. In any order.
    select : "largest", "all_external" or "all"
        The region with the largest outline; every region; every region and every hole, as MaxBoxAccV2 counts.

    Raises
    ------
    InputError
        ``heat`` has NaN or values outside [0, 1] or another shape, or a threshold or ``select`` is out of range.

    Examples
    --------
    >>> heat = np.array([[0.0, 0.9, 0.0, 0.0], [0.0, 1.0, 0.1, 0.6]])
    >>> found = boxes_at_thresholds(heat, [0.0, 0.5, 0.7], select="all")
    >>> found.counts
    array([1, 2, 1])
    >>> found.at(1)
    array([[1, 0, 2, 2],
           [3, 1, 4, 2]])
    """
    check_choice(select, "select", get_args(Select))
    grey = _as_grey(heat)
    cuts = (_as_thresholds(thresholds) * int(grey.max())).astype(np.int64)  # 0.29 * 100 gives 28, and is meant to
    wanted = np.bincount(cuts, minlength=256) > 0
    levels, index = np.flatnonzero(wanted), (np.cumsum(wanted) - 1)[cuts]
    if not grey.any() or not len(levels):
        return ThresholdBoxes(levels, np.empty((0, 4), np.int64), np.zeros(len(levels) + 1, np.int64), index)
    level, start, boxes = _outer_boxes(grey, levels, select == "largest")
    if select == "all":
        holes = _hole_boxes(grey, levels)
        level, start, boxes = (np.concatenate(part) for part in zip((level, start, boxes), holes, strict=True))
    order = np.lexsort((start, level))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(level, minlength=256)[levels])])
    return ThresholdBoxes(levels, boxes[order], offsets, index)


def _outer_boxes(grey: Array, levels: Array, largest: bool) -> tuple[Array, Array, Array]:
    """Level, order within it, and box of every region of pixels above a level, or of the largest."""
    level, start, boxes = _trees.regions(_frame(grey, 0), levels[::-1] + 1, corners=True, largest=largest)
    return level - 1, start, boxes - 1


def _hole_boxes(grey: Array, levels: Array) -> tuple[Array, Array, Array]:
    """The same of every hole: pixels not above the level, joined by their sides, apart from the frame."""
    level, start, boxes = _trees.regions(_frame(255 - grey, 255), 255 - levels, corners=False, largest=False)
    inside = start > 0
    after_regions = start[inside] + grey.size
    return 255 - level[inside], after_regions, boxes[inside] + [-2, -2, 0, 0]  # on the pixels around the hole


def _frame(grey: Array, value: int) -> Array:
    framed = np.full((grey.shape[0] + 2, grey.shape[1] + 2), value, dtype=np.uint8)  # np.pad takes five times as long
    framed[1:-1, 1:-1] = grey
    return framed


def _as_grey(heat: Array) -> NDArray[np.uint8]:
    if isinstance(heat, np.ndarray) and heat.dtype == np.uint8:
        if heat.ndim != 2 or not heat.size:
            raise InputError(f"heat must be grey levels (H, W) with pixels, got {heat.shape}")
        return heat
    if getattr(heat, "ndim", 2) != 2:
        raise InputError(f"heat must be one map (H, W), got {tuple(heat.shape)}; go through a batch map by map")
    return grey_levels(as_maps(heat)[0])


def _as_thresholds(thresholds: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(thresholds)
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        raise InputError(f"thresholds must be numbers (T,), got {given.dtype} {given.shape}")
    values = given.astype(np.float64)
    if not ((values >= 0) & (values < 1)).all():  # false for NaN
        raise InputError(f"thresholds must be at least 0 and below 1, got {values.min():g} to {values.max():g}")
    return values
