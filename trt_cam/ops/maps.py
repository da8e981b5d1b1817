"""Heat maps as pictures of numbers: to [0, 1], and to another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops._checks import check_choice, check_count, check_finite
from trt_cam.ops.precision import at_least_float32

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS = get_args(Interpolation)  # here, since older versions of torch cannot trace the call


def minmax(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch every map to [0, 1], on its own.

    Parameters
    ----------
    maps : (..., H, W), finite
        Any values, negative ones too.

    Returns
    -------
    maps : (..., H, W), in [0, 1], at least float32
        The smallest value becomes 0 and the largest 1; a flat map becomes zeros.
    flat : (...) bool
        True where a map is flat: its range is within the rounding of its values.

    Raises
    ------
    InputError
        ``maps`` has no pixels, is not floating, or has NaN or infinity.

    Notes
    -----
    A constant map is not exactly constant any more once it was resized, hence the allowance of 64 rounding steps:
    without it, noise in the last digit would be stretched into a picture.

    Examples
    --------
    >>> maps, flat = minmax(torch.tensor([[[-1.0, 0.0, 3.0]], [[7.0, 7.0, 7.0]]]))
    >>> maps.flatten(1)
    tensor([[0.0000, 0.2500, 1.0000],
            [0.0000, 0.0000, 0.0000]])
    >>> flat
    tensor([False,  True])
    """
    maps = _checked(maps, "(..., H, W)", 2)
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    flat = span <= 64 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    stretched = (maps - low) / torch.where(flat, 1.0, span)
    return stretched.masked_fill(flat, 0.0), flat[..., 0, 0]


def resize(maps: Tensor, size: Sequence[int], mode: Interpolation = "bicubic") -> Tensor:
    """Interpolate maps to another size, pixel centres at half positions, without antialiasing.

    Parameters
    ----------
    maps : (B, h, w), finite
        Maps of one size.
    size : (H, W), at least 1
        Height and width wanted.
    mode : "bicubic" or "bilinear"
        Bicubic (a = -0.75, as OpenCV's) may overshoot the range of its input; bilinear never does.

    Returns
    -------
    (B, H, W), at least float32

    Raises
    ------
    InputError
        ``maps`` has another shape, no pixels, NaN or infinity, ``size`` is not two positive integers, or ``mode`` is
        neither of the two.

    Examples
    --------
    >>> resize(torch.tensor([[[0.0, 1.0]]]), (1, 4), "bilinear")
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    check_choice(mode, "mode", INTERPOLATIONS)
    maps = _checked(maps, "(B, h, w)", 3, most=3)
    if not isinstance(size, Sequence) or len(size) != 2:
        raise InputError(f"size must be (height, width), got {size!r}")
    for side in size:
        check_count(side, "each side of size", 1)
    H, W = (int(side) for side in size)
    return F.interpolate(maps[:, None], size=(H, W), mode=mode, align_corners=False)[:, 0]


def _checked(maps: Tensor, axes: str, least: int, most: float = math.inf) -> Tensor:
    """Maps of ``least`` to ``most`` axes, in at least float32."""
    if not isinstance(maps, Tensor):
        raise InputError(f"maps must be a tensor {axes}, got {type(maps).__name__}")
    if not least <= maps.ndim <= most or not maps.is_floating_point() or 0 in maps.shape[-2:]:
        raise InputError(f"maps must be a floating tensor {axes} with pixels, got {maps.dtype} {tuple(maps.shape)}")
    check_finite(maps, "maps")
    return at_least_float32(maps)
