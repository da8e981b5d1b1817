"""One photo's boxes against its ground truth, at every threshold, with the evaluators' corners.

They take a box's last pixel and read it as inclusive: every width and height has one added, on both sides of an IoU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from trt_cam.errors import InputError
from trt_cam.metrics.protocols import Protocol
from trt_cam.ops.boxes import Select
from trt_cam.ops.thresholds import boxes_at_thresholds

TOP = 5  # classes of a photo that are kept: Top-1 and Top-5 Loc ask for no more
KINDS = ("right", "multi_instances", "region_part", "region_more", "region_wrong")


@dataclass(frozen=True)
class Overlaps:
    """What one photo's boxes are worth at each of T thresholds.

    Attributes
    ----------
    box : (T, 4) int64
        Around the largest contour, in the evaluator's corners.
    largest, every : (T,) float64
        Best IoU with a ground-truth box: of that box, and of any contour's, holes included.
    count : (T,) int64
        Number of contours; 1 where there is none, as the evaluators then have one box.
    kind : (T,) uint8
        Which of `KINDS` the largest contour's box is, the class left aside.
    """

    box: NDArray[np.int64]
    largest: NDArray[np.float64]
    every: NDArray[np.float64]
    count: NDArray[np.int64]
    kind: NDArray[np.uint8]


def overlaps(
    heat: npt.ArrayLike, truth: NDArray[np.int64], protocol: Protocol, thresholds: NDArray[np.float64]
) -> Overlaps:
    """Boxes of a heat map at all thresholds, compared with a photo's ground truth.

    Parameters
    ----------
    heat : (H, W), in [0, 1]
        Of the labelled class: from ``protocol.heat``, or a stored score map.
    truth : (M, 4)
        From ``scale_boxes``, at least one.
    thresholds : (T,), in [0, 1)
        Shares of the map's maximum.

    Raises
    ------
    InputError
        The map has NaN or values outside [0, 1], or there is no ground truth.
    """
    if not len(truth):
        raise InputError("overlaps need at least one ground-truth box, got none")
    heat = np.asarray(heat)
    one, _, at = _boxes(heat, thresholds, "largest", protocol)
    every, offsets, at_every = _boxes(heat, thresholds, "all", protocol)
    ious = inclusive_iou(every, truth).max(axis=1)  # (K,)
    return Overlaps(
        one[at],
        inclusive_iou(one, truth).max(axis=1)[at],
        np.maximum.reduceat(ious, offsets[:-1])[at_every],
        np.diff(offsets)[at_every],
        error_kinds(one, truth, protocol)[at],
    )


def error_kinds(boxes: NDArray[np.int64], truth: NDArray[np.int64], protocol: Protocol) -> NDArray[np.uint8]:
    """Why boxes of the right class miss, as TS-CAM breaks it down; the first that holds of `KINDS`.

    Right: the best IoU passes 0.5. Several instances: two ground-truth boxes or more are each covered by more than 0.3
    of their area. Part: more than half of the box lies in the ground-truth box of largest IoU, the first of equals.
    More: it covers at least 0.7 of that. Else wrong.

    Parameters
    ----------
    boxes : (K, 4)
    truth : (M, 4)
        Corners, read as inclusive.

    Returns
    -------
    (K,) uint8
        Positions in `KINDS`.
    """
    shared, area, truth_area = _intersections(boxes, truth)  # (K, M), (K, 1), (M,)
    iou = shared / (area + truth_area - shared)
    of_truth, of_box = shared / truth_area, shared / area
    nearest = iou.argmax(axis=1)[:, None]
    holds = [
        passes(iou.max(axis=1), protocol),
        (of_truth > 0.3).sum(axis=1) > 1,
        np.take_along_axis(of_box, nearest, axis=1)[:, 0] > 0.5,
        np.take_along_axis(of_truth, nearest, axis=1)[:, 0] >= 0.7,
    ]
    return np.select(holds, [0, 1, 2, 3], 4).astype(np.uint8)


def passes(iou: NDArray[np.float64], protocol: Protocol) -> NDArray[np.bool_]:
    """Whether an IoU is enough for Top-1 and Top-5 Loc: 0.5, or more than that where the protocol is strict."""
    return iou > 0.5 if protocol.strict else iou >= 0.5


def inclusive_iou(boxes: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (K, M) of every box (K, 4) with every other (M, 4), corners read as inclusive."""
    shared, area, other_area = _intersections(boxes, others)
    return shared / (area + other_area - shared)


def top_classes(logits: npt.ArrayLike) -> NDArray[np.int64]:
    """The classes of largest logits, best first, of equals the lower one.

    Parameters
    ----------
    logits : (K,), finite

    Returns
    -------
    (5,) int64
        -1 at the end where there are fewer classes.

    Raises
    ------
    InputError
        The logits are of another shape, none, or not finite.
    """
    values = np.asarray(logits)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"logits must be finite and (K,), got {values.dtype} {values.shape}")
    best = np.argsort(-values.astype(np.float64), kind="stable")[:TOP]
    return np.pad(best, (0, TOP - len(best)), constant_values=-1).astype(np.int64)


def _boxes(
    heat: NDArray[Any], thresholds: NDArray[np.float64], select: Select, protocol: Protocol
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Boxes (K, 4) of one grey level after another in the evaluator's corners, offsets (L + 1,), level of each (T,)."""
    found = boxes_at_thresholds(heat, thresholds, select=select)
    if not len(found.boxes):  # no foreground at any threshold: one box at one level stands for all
        return np.array([protocol.empty]), np.array([0, 1]), np.zeros(len(thresholds), dtype=np.int64)
    H, W = heat.shape
    corners = np.minimum(found.boxes, [W, H, W - 1, H - 1]) if protocol.clip else found.boxes
    return corners, found.offsets, found.index


def _intersections(
    boxes: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels shared (K, M), and the areas (K, 1) and (M,)."""
    near = np.maximum(boxes[:, None, :2], others[None, :, :2])  # (K, M, 2)
    far = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(far - near + 1, 0).prod(axis=-1)
    area, other_area = ((one[:, 2:] - one[:, :2] + 1).prod(axis=-1) for one in (boxes, others))
    return shared, area[:, None], other_area
