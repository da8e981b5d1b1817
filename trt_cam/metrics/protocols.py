"""The published protocols of weakly supervised localization, by name.

They differ in a dozen small steps, and no two of their figures can be compared. Choose one by name, `get_protocol`;
its switches are no options, and a mixture of two has no name. Sources: Choe et al., "Evaluating weakly supervised
object localization methods right" (arXiv:2001.07437) and its code wsolevaluation (WE below), TS-CAM
(arXiv:2103.14862) and TRT (arXiv:2208.01838) and theirs, which share one evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from trt_cam.errors import InputError
from trt_cam.metrics.resizing import enlarge
from trt_cam.ops._checks import check_count, check_inside

Source = Literal["fixed", "from-val", "best"]

IOUS = (0.3, 0.5, 0.7)  # every protocol's IoU thresholds are among these
GRID = 224


@dataclass(frozen=True)
class Protocol:
    """How one evaluator gets from a class map and boxes of the photo to an outcome. Made by `get_protocol`.

    Attributes
    ----------
    name
        One of `PRESETS`.
    headline
        The figure that the protocol is known for.
    sources
        Where its thresholds may come from, the published way first: "best" is an oracle on the photos reported,
        "from-val" another split, "fixed" a number given beforehand.
    grid : pixels
        Side of the square on which maps and boxes are compared.
    interpolation, dtype
        Of the enlarged map.
    clip
        Whether a box's far corner, one pixel too far as the evaluators take it, is held within the map.
    empty : x0, y0, x1, y1
        The box of a map without foreground.
    quotient_first
        Ground truth is ``trunc(x * grid / W)``; True is ``trunc(clip(x / W * grid, 0, grid - 1))``.
    first_box_only
        Whether further ground-truth boxes of a photo are left out.
    strict
        Whether Top-1 and Top-5 Loc and the breakdown of errors want an IoU above 0.5, not of at least 0.5.
    """

    name: str
    headline: str
    sources: tuple[Source, ...] = ("best", "from-val", "fixed")
    grid: int = GRID
    interpolation: str = "bicubic"
    dtype: str = "float64"
    clip: bool = True
    empty: tuple[int, int, int, int] = (0, 0, 0, 0)
    quotient_first: bool = False
    first_box_only: bool = False
    strict: bool = False

    @property
    def on_input(self) -> bool:
        """Whether boxes are compared on the model's input, whatever its size, as TS-CAM and TRT do."""
        return self.quotient_first

    def heat(self, class_map: npt.ArrayLike) -> NDArray[Any]:
        """A class map on the protocol's grid, stretched to [0, 1] there.

        Parameters
        ----------
        class_map : (h, w), finite
            Of the labelled class, raw: any range, any size, covering the whole input.

        Returns
        -------
        (grid, grid) of `dtype`
            A constant map gives zeros.

        Raises
        ------
        InputError
            The map has another shape, no pixels, NaN or infinity.
        """
        values = np.asarray(class_map, dtype=self.dtype)
        if values.ndim != 2 or 0 in values.shape:
            raise InputError(f"a class map must be (h, w) with pixels, got {values.shape}")
        if not np.isfinite(values).all():
            raise InputError(f"a class map must be finite, got NaN or infinity in {values.shape}; look at what made it")
        if values.min() == values.max():  # beforehand: enlarged, it would differ from itself in the last digit
            return np.zeros((self.grid, self.grid), self.dtype)
        grown = enlarge(values, (self.grid, self.grid), self.interpolation)
        grown = grown - grown.min()
        return grown / (grown.max() or 1)


def threshold_list(interval: float = 0.01) -> NDArray[np.float64]:
    """The evaluators' list of thresholds, ``0, interval, 2 interval, ...`` below 1, to the last bit.

    Parameters
    ----------
    interval : in (0, 1)
        0.01 in wsolevaluation's stand-alone script, 0.001 in its training.

    Raises
    ------
    InputError
        ``interval`` is out of range.
    """
    check_inside(interval, "interval", 0, 1)
    return np.arange(0, 1, interval)


_TSCAM = Protocol(
    name="tscam",
    headline="gt_known_50",
    sources=("fixed", "from-val", "best"),
    interpolation="bilinear",
    dtype="float32",
    clip=False,
    empty=(0, 0, 1, 1),
    quotient_first=True,
    strict=True,
)
PRESETS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("maxboxacc", "maxboxacc"),
        Protocol("maxboxacc_v2", "maxboxacc_v2"),
        Protocol("v2_val_threshold", "maxboxacc_v2", sources=("from-val",)),
        Protocol("pxap", "pxap"),
        _TSCAM,
        replace(
            _TSCAM,
            name="trt_fixed_v2",
            headline="maxboxacc_v2",
            sources=("fixed",),
            clip=True,
            empty=(0, 0, 0, 0),
            first_box_only=True,
        ),
    )
}


def get_protocol(name: str, *, size: int = GRID) -> Protocol:
    """A protocol by its name.

    Parameters
    ----------
    name
        - ``maxboxacc``: WE. One box around the largest contour, IoU >= 0.5 with any ground-truth box, the best of all
          thresholds, one for the whole data set.
        - ``maxboxacc_v2``: WE. Every contour's box, holes included; the mean over IoU 0.3, 0.5, 0.7, each at its own
          best threshold.
        - ``v2_val_threshold``: the same at thresholds chosen on another split, an accuracy one can have.
        - ``pxap``: WE, on masks.
        - ``tscam``: GT-known, Top-1 and Top-5 Loc and the breakdown of errors as TS-CAM and TRT print them.
        - ``trt_fixed_v2``: "MaxBoxAccV2" as TRT's script prints it: one fixed threshold, the first ground-truth box.
    size : pixels
        Side of the input, for the last two, which compare boxes on it; the others always do on 224 pixels.

    Raises
    ------
    InputError
        The name is unknown, or the protocol does not take the size.
    """
    if name not in PRESETS:
        raise InputError(f"protocol must be one of {', '.join(PRESETS)}, got {name!r}")
    check_count(size, "size", 2)
    if size != GRID and not PRESETS[name].on_input:
        raise InputError(f"protocol {name!r} compares on {GRID} pixels whatever the input, got a size of {size}")
    return replace(PRESETS[name], grid=int(size))


def scale_boxes(boxes: npt.ArrayLike, size: tuple[int, int], protocol: Protocol) -> NDArray[np.int64]:
    """Ground-truth boxes on a protocol's grid, truncated as its evaluator does.

    Parameters
    ----------
    boxes : (M, 4)
        ``x0, y0, x1, y1`` in pixels of the photo, as the benchmark's lists hold them; CUB's own list has x, y, width
        and height, which TS-CAM truncates to integers before it adds them.
    size : (H, W)
        Of the photo.

    Returns
    -------
    (M, 4) int64
        Corners that the evaluator reads as inclusive. One box where the protocol reads the first only.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scale = np.array([size[1], size[0]] * 2, dtype=np.float64)
    if protocol.first_box_only:
        corners = corners[:1]
    if protocol.quotient_first:
        corners = np.clip(corners / scale * protocol.grid, 0, protocol.grid - 1)
    else:
        corners = corners * protocol.grid / scale
    return corners.astype(np.int64)
