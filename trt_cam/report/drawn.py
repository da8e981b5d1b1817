"""What a page draws of one photo: the photo itself, heat, boxes at every threshold, the object's outline; as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trt_cam.data.photos import open_photo
from trt_cam.data.samples import Sample
from trt_cam.evaluation.measuring import grey
from trt_cam.metrics.masks import evaluation_mask
from trt_cam.metrics.protocols import Protocol
from trt_cam.metrics.records import BoxTable
from trt_cam.ops.thresholds import boxes_at_thresholds

SIDE = 288  # pixels of a thumbnail
CELLS = 32  # of a map's side that are kept: the page enlarges it smoothly
OUTLINE = 112  # side of the grid that an object's outline is drawn on


def thumbnail(sample: Sample) -> tuple[str, tuple[int, int]]:
    """A photo as the data URI of a small JPEG, and its width and height."""
    image = open_photo(sample.path, at_least=(SIDE, SIDE)).image
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=76, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode(), image.size


def cells(evidence: NDArray[Any]) -> dict[str, Any]:
    """A map (Gh, Gw) as grey levels: its ``width``, and its ``levels`` row by row."""
    values = np.asarray(evidence, dtype=np.float32)
    if max(values.shape) > CELLS:
        size = min(values.shape[1], CELLS), min(values.shape[0], CELLS)
        values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))
    low, span = values.min(), np.ptp(values)
    levels = np.rint((values - low) / (span or 1) * 255).astype(np.uint8)
    return {"width": values.shape[1], "levels": as_text(levels)}


def boxes_of(
    protocol: Protocol, evidence: NDArray[Any], table: BoxTable, row: int, thresholds: NDArray[np.float64]
) -> NDArray[np.integer]:
    """What a photo's one box is at each distinct threshold.

    Returns
    -------
    (L, 6) uint8, or uint16 on a grid of 256 pixels and more
        ``x0, y0, x1, y1`` on the protocol's grid, far edge exclusive, zeros where there is none; IoU in hundredths,
        rounded down; place in ``metrics.localization.KINDS``.
    """
    firsts, _ = distinct(thresholds)
    boxes = boxes_at_thresholds(protocol.heat(evidence), thresholds, select="largest").boxes
    boxes = boxes if len(boxes) else np.zeros((len(firsts), 4), np.int64)  # of a flat map
    iou = np.floor(table.largest[row, firsts] * 100 + 1e-9)[:, None].astype(np.int64)
    found = np.concatenate([boxes, iou, table.kind[row, firsts][:, None]], axis=1)  # (L, 6)
    return found.astype(np.uint8 if protocol.grid < 256 else np.uint16)


def distinct(thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first threshold of each grey level (L,), and the level of each threshold (T,).

    Thresholds of one level share their boxes. Maps that are not flat reach grey level 255, so all have the same.
    """
    _, firsts, index = np.unique((thresholds * 255).astype(np.int64), return_index=True, return_inverse=True)
    return firsts, index


def object_outline(sample: Sample) -> str:
    """Around the pixels of a photo's object, as an SVG path on `OUTLINE` units."""
    return outline(evaluation_mask([grey(path) for path in sample.masks], size=OUTLINE) == 1)


def outline(mask: NDArray[np.bool_]) -> str:
    """Around the pixels of a mask (H, W), as an SVG path whose unit is a pixel.

    Examples
    --------
    >>> outline(np.array([[False, True, True]]))
    'M1 0h2M1 1h2M1 0v1M3 0v1'
    """
    padded = np.pad(mask, 1)
    across = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])
    down = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
    return "".join(
        [*(f"M{x} {y}h{length}" for y, x, length in across), *(f"M{x} {y}v{length}" for x, y, length in down)]
    )


def as_text(values: NDArray[Any]) -> str:
    """An array's bytes, little end first, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode()


def _runs(lines: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    """Line, start and length of every run of True."""
    for number, line in enumerate(lines):
        ends = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
        for start, stop in ends.reshape(-1, 2).tolist():
            yield number, start, stop - start
