"""What a method must beat: the same box for every photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trt_cam.metrics.localization import inclusive_iou
from trt_cam.metrics.records import BoxTable


def centred_squares(grid: int) -> NDArray[np.int64]:
    """Squares of every side from 1 to ``grid`` in the middle of the grid, (grid, 4) inclusive corners.

    The last one is the whole image. A side of another parity than the grid lies half a pixel up and left.
    """
    side = np.arange(1, grid + 1)
    near = (grid - side) // 2
    return np.stack([near, near, near + side - 1, near + side - 1], axis=1)


def square_ious(table: BoxTable, grid: int) -> NDArray[np.float64]:
    """Best IoU of each photo's ground truth with the centred square of each side, (N, grid)."""
    squares = centred_squares(grid)
    parts = np.array_split(table.truth, len(table.truth) // 4096 + 1)  # all at once would take gigabytes
    iou = np.concatenate([inclusive_iou(part, squares) for part in parts])  # (S, grid)
    return np.maximum.reduceat(iou, np.concatenate([[0], table.boxes.cumsum()[:-1]]), axis=0)
