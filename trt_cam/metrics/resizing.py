"""Maps and masks at another size, to the last bit as OpenCV (4.14 and later) enlarges them.

The evaluators resize with OpenCV, and truncate to 255 grey levels: a difference in the seventh digit moves a pixel by
a level now and then. Its cubic weights are float32, whatever the map; `ops.maps.resize` has exact ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.errors import InputError

_CUBIC = np.float32(-0.75)  # the constant a of the cubic kernel


def enlarge(values: NDArray[Any], size: tuple[int, int], interpolation: str) -> NDArray[Any]:
    """A map (h, w) at (H, W), pixel centres at half positions, without antialiasing.

    Parameters
    ----------
    values : (h, w), finite
    size : (H, W)
    interpolation : "bicubic", "bilinear" or "nearest"
        As INTER_CUBIC of a float64 map, INTER_LINEAR of a float32 map, and INTER_NEAREST of anything: bicubic gives
        float64, bilinear float32, nearest keeps the type.

    Returns
    -------
    (H, W)
        A map that has the size already comes back as it is.

    Raises
    ------
    InputError
        The map has another shape or no pixels, or ``interpolation`` is none of the three.
    """
    resizers: dict[str, Callable[[NDArray[Any], tuple[int, int]], NDArray[Any]]] = {
        "bicubic": _bicubic,
        "bilinear": _bilinear,
        "nearest": _nearest,
    }
    if interpolation not in resizers:
        raise InputError(f"interpolation must be one of {', '.join(resizers)}, got {interpolation!r}")
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"a map must be (h, w) with pixels, got {values.shape}")
    return resizers[interpolation](values, size)


def _bicubic(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    for axis in (1, 0):
        at = _positions(values.shape[axis], size[axis]).astype(np.float32)
        first = np.floor(at).astype(np.int64)
        taps = _cubic_weights(at - first.astype(np.float32)).astype(np.float64)  # (4, n)
        near = np.clip(first + np.arange(-1, 3)[:, None], 0, values.shape[axis] - 1)  # (4, n)
        shape = (-1, 1) if axis == 0 else (1, -1)
        parts = [np.take(values, near[k], axis) * taps[k].reshape(shape) for k in range(4)]
        values = parts[0] + parts[1] + parts[2] + parts[3]  # in this order, as the last digit depends on it
    return values.astype(np.float64, copy=False)


def _cubic_weights(t: NDArray[np.float32]) -> NDArray[np.float32]:
    a, one = _CUBIC, np.float32(1)
    outer = ((a * (t + one) - 5 * a) * (t + one) + 8 * a) * (t + one) - 4 * a
    inner = ((a + 2) * t - (a + 3)) * t * t + one
    after = ((a + 2) * (one - t) - (a + 3)) * (one - t) * (one - t) + one
    return np.stack([outer, inner, after, one - outer - inner - after])  # (4, n)


def _bilinear(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    values = values.astype(np.float32)
    for axis in (1, 0):
        last = values.shape[axis] - 1
        at = np.clip(_positions(values.shape[axis], size[axis]), 0, last)
        first = np.floor(at).astype(np.int64)
        share = (at - first).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        low, high = np.take(values, first, axis), np.take(values, np.minimum(first + 1, last), axis)
        # One rounding for product and sum, as the processor's fused instruction: a float32 product is exact in float64.
        values = (low + (high - low).astype(np.float64) * share).astype(np.float32)
    return values


def _nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (
        np.minimum((np.arange(wanted) * (1 / (wanted / held))).astype(np.int64), held - 1)
        for wanted, held in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def _positions(held: int, wanted: int) -> NDArray[np.float64]:
    """Where the centres of the wanted pixels lie among those held."""
    return np.arange(0.5, wanted) * (held / wanted) - 0.5
