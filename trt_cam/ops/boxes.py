"""From heat maps to boxes, with the results of the published evaluators but without OpenCV.

A contour's area is computed from 2x2 blocks of pixels: the polygon through the centres of a filled region's border
pixels covers, of every block with three of the region's pixels, a half, and of every block with four, all of it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops._checks import check_choice, check_inside

Select = Literal["largest", "all_external", "all"]
Rank = Literal["contour_area", "pixel_area"]
Slices = tuple[slice, slice]
Array = TypeVar("Array", Tensor, NDArray[Any])

_EIGHT = np.ones((3, 3), dtype=bool)  # neighbours of a foreground pixel; scipy's default, four, suits the holes


@overload
def boxes_from_map(
    heat: Tensor, threshold: float = ..., *, select: Select = ..., rank: Rank = ..., levels: int | None = ...
) -> Tensor | list[Tensor]: ...
@overload
def boxes_from_map(
    heat: NDArray[Any], threshold: float = ..., *, select: Select = ..., rank: Rank = ..., levels: int | None = ...
) -> NDArray[np.int64] | list[NDArray[np.int64]]: ...
def boxes_from_map(
    heat: Tensor | NDArray[Any],
    threshold: float = 0.2,
    *,
    select: Select = "largest",
    rank: Rank = "contour_area",
    levels: int | None = 256,
) -> Tensor | NDArray[np.int64] | list[Tensor] | list[NDArray[np.int64]]:
    """Boxes around the 8-connected regions where a heat map exceeds a share of its maximum.

    Parameters
    ----------
    heat : (H, W) or (B, H, W), in [0, 1]
        Heat maps in any frame; the boxes are in that frame. A tensor or a numpy array.
    threshold : in [0, 1)
        Foreground is strictly above ``threshold * max``, the maximum taken per map.
    select : "largest", "all_external" or "all"
        One region; every region, also one inside another's hole; every contour, the borders of holes too (as
        MaxBoxAccV2 counts).
    rank : "contour_area" or "pixel_area"
        What "largest" means: the area inside the outline through the border pixels' centres, holes filled, as
        OpenCV's ``contourArea``, or the number of pixels. Among equals, the region that starts last in reading order.
    levels : 256 or None
        Grey levels the map is truncated to before thresholding, as the evaluators do: ``q = trunc(255 heat)``,
        foreground ``q > int(threshold * max q)``. None keeps floats.

    Returns
    -------
    (M, 4) int64, or a list of them for a batch
        ``x0, y0, x1, y1`` from the top left, x1 and y1 exclusive; M = 0 for an all-zero map. A tensor for a tensor
        (on its device), a numpy array for an array. Regions come in reading order of their first pixel, then holes.

    Raises
    ------
    InputError
        ``heat`` has NaN or values outside [0, 1] or another shape, or an option is out of range.

    Examples
    --------
    >>> heat = np.array([[0.0, 0.9, 0.0, 0.0], [0.0, 1.0, 0.1, 0.6]])
    >>> boxes_from_map(heat, 0.5)  # two regions without area: the last one
    array([[3, 1, 4, 2]])
    >>> boxes_from_map(heat, 0.5, rank="pixel_area")
    array([[1, 0, 2, 2]])
    >>> boxes_from_map(heat, 0.5, select="all")
    array([[1, 0, 2, 2],
           [3, 1, 4, 2]])
    """
    _check_options(threshold, select, rank, levels)
    maps = as_maps(heat)
    found = [_boxes(one, threshold, select, rank, levels) for one in maps]  # B of (M, 4)
    if isinstance(heat, Tensor):
        device = heat.device
        tensors = [torch.from_numpy(boxes).to(device) for boxes in found]
        return tensors if heat.ndim == 3 else tensors[0]
    return found if heat.ndim == 3 else found[0]


def box_iou(boxes1: Array, boxes2: Array) -> Array:
    """Intersection over union of every box of one set with every box of another.

    Parameters
    ----------
    boxes1, boxes2 : (M, 4) and (N, 4)
        ``x0, y0, x1, y1``, far edge exclusive; both tensors or both numpy arrays, of integers or floats.

    Returns
    -------
    (M, N), in [0, 1]
        float64 for integer boxes, else the floating type of the boxes. Two boxes without area have 0.

    Raises
    ------
    InputError
        A set has another shape, NaN, infinity, or a box whose far edge lies before its near edge.

    Examples
    --------
    >>> box_iou(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])).round(3)
    array([[1.   , 0.333, 0.   ]])
    """
    first, second = _as_boxes(boxes1, "boxes1"), _as_boxes(boxes2, "boxes2")
    if isinstance(boxes1, Tensor) != isinstance(boxes2, Tensor):
        raise InputError("boxes1 and boxes2 must both be tensors or both be numpy arrays, got one of each")
    kind = torch.promote_types(first.dtype, second.dtype)
    wide = torch.promote_types(kind, torch.float32)  # float16 ends below the area of 256 x 256 pixels
    first, second = first.to(wide), second.to(wide)
    near = torch.maximum(first[:, None, :2], second[None, :, :2])  # (M, N, 2)
    far = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = (far - near).clamp(min=0).prod(dim=-1)
    area1, area2 = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=-1) for boxes in (first, second))
    union = area1[:, None] + area2[None, :] - inside
    iou = (inside / torch.where(union > 0, union, 1.0)).to(kind)
    return iou if isinstance(boxes1, Tensor) else iou.numpy()


def grey_levels(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map in [0, 1] truncated to 0 to 255, in the precision of the map, as the evaluators do."""
    return (heat * 255).astype(np.uint8)


def _boxes(heat: NDArray[Any], threshold: float, select: Select, rank: Rank, levels: int | None) -> NDArray[np.int64]:
    mask = _foreground(heat, threshold, levels)
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return np.empty((0, 4), dtype=np.int64)
    mask = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]  # what lies outside costs time and closes no hole
    labels, count = ndimage.label(mask, _EIGHT)
    regions = ndimage.find_objects(labels) if count > 1 else [(slice(0, len(mask)), slice(0, mask.shape[1]))]
    if select == "largest" and count > 1:
        largest = _largest_by_contour if rank == "contour_area" else _largest_by_pixels
        regions = [regions[_last_to_start(labels, regions, largest(labels, regions))]]
    found = [(x.start, y.start, x.stop, y.stop) for y, x in regions]
    if select == "all":
        found += _hole_boxes(mask)
    return np.array(found, dtype=np.int64) + np.array([xs[0], ys[0], xs[0], ys[0]])


def _foreground(heat: NDArray[Any], threshold: float, levels: int | None) -> NDArray[np.bool_]:
    if levels is None:
        heat = heat.astype(np.float64)
        return heat > threshold * float(heat.max())
    grey = grey_levels(heat)
    return grey > int(threshold * int(grey.max()))  # a product in float64: 0.29 * 100 gives 28, and is meant to


def _largest_by_pixels(labels: NDArray[Any], regions: list[Slices]) -> NDArray[np.intp]:
    sizes = np.bincount(labels.ravel())[1:]
    return np.flatnonzero(sizes == sizes.max())


def _largest_by_contour(labels: NDArray[Any], regions: list[Slices]) -> NDArray[np.intp]:
    """Regions whose outer contour encloses most. Holes are filled only where that could change the winner."""
    area = _doubled_areas(labels, len(regions))  # (M,) without what holes add
    bound = np.array([2 * (x.stop - x.start - 1) * (y.stop - y.start - 1) for y, x in regions])
    for i in np.argsort(-bound):
        best = area.max()
        if bound[i] < best:
            break
        if area[i] < bound[i]:
            area[i] = _filled_doubled_area(labels[regions[i]] == i + 1, area[i])
    return np.flatnonzero(area == area.max())


def _last_to_start(labels: NDArray[Any], regions: list[Slices], tied: NDArray[np.intp]) -> int:
    """Of equal contours the evaluators take the first that OpenCV lists: the last one in reading order."""

    def first_pixel(i: int) -> tuple[int, int]:
        rows, columns = regions[i]
        return rows.start, columns.start + int((labels[rows.start, columns] == i + 1).argmax())

    return int(max(tied, key=first_pixel))


def _doubled_areas(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Twice the area between border pixels' centres, of every label."""
    pixels = _pixels_per_block(labels > 0)
    full = np.flatnonzero(pixels > 2)
    # Of a block with three pixels or four, one end of the diagonal is set, and all its pixels have one label.
    owner = np.maximum(labels[:-1, :-1], labels[1:, 1:]).ravel()[full]
    return np.bincount(owner, pixels.ravel()[full] - 2, minlength=count + 1)[1:].astype(np.int64)


def _filled_doubled_area(region: NDArray[np.bool_], area: int) -> int:
    outside, count = ndimage.label(np.pad(~region, 1, constant_values=True))
    if count == 1:
        return area
    pixels = _pixels_per_block(outside[1:-1, 1:-1] != outside[0, 0])
    return int((pixels == 3).sum() + 2 * (pixels == 4).sum())


def _pixels_per_block(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    one = mask.view(np.uint8)
    return one[:-1, :-1] + one[:-1, 1:] + one[1:, :-1] + one[1:, 1:]


def _hole_boxes(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Contours of holes: they run on the foreground pixels around the hole, one further out on each side."""
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    holes = [found for i, found in enumerate(ndimage.find_objects(labels), 1) if i != labels[0, 0]]
    return [(x.start - 2, y.start - 2, x.stop, y.stop) for y, x in holes]  # 1 of the padding, 1 of the rim


def _check_options(threshold: float, select: str, rank: str, levels: int | None) -> None:
    check_inside(threshold, "threshold", 0, 1, or_low=True)
    check_choice(select, "select", get_args(Select))
    check_choice(rank, "rank", get_args(Rank))
    if levels not in (256, None):
        raise InputError(f"levels must be 256 or None, got {levels!r}")


def as_maps(heat: Tensor | NDArray[Any]) -> NDArray[np.floating]:
    """Heat maps (H, W) or (B, H, W), checked, as (B, H, W) in float32 or float64."""
    if isinstance(heat, Tensor):
        heat = heat.detach()
        maps = (heat.float() if heat.dtype in (torch.float16, torch.bfloat16) else heat).cpu().numpy()
    elif isinstance(heat, np.ndarray):
        maps = heat.astype(np.float32) if heat.dtype == np.float16 else heat
    else:
        raise InputError(f"heat must be a tensor or a numpy array, got {type(heat).__name__}")
    if maps.ndim not in (2, 3) or 0 in maps.shape[-2:] or not np.issubdtype(maps.dtype, np.floating):
        raise InputError(f"heat must be floats (H, W) or (B, H, W) with pixels, got {maps.dtype} {maps.shape}")
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):  # false for NaN
        raise InputError(f"heat must be in [0, 1], got {maps.min():g} to {maps.max():g}; ops.maps.minmax stretches it")
    return maps if maps.ndim == 3 else maps[None]


def _as_boxes(boxes: Tensor | NDArray[Any], name: str) -> Tensor:
    """(M, 4) floating, checked."""
    if not isinstance(boxes, (Tensor, np.ndarray)):
        raise InputError(f"{name} must be a tensor or a numpy array (M, 4), got {type(boxes).__name__}")
    if isinstance(boxes, Tensor):
        numbers = boxes.dtype != torch.bool and not boxes.is_complex()
    else:
        numbers = boxes.dtype.kind in "fiu"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not numbers:
        raise InputError(f"{name} must be numbers (M, 4), got {boxes.dtype} {tuple(boxes.shape)}")
    if not isinstance(boxes, Tensor):  # a copy: torch takes no view that runs backwards, and no foreign byte order
        boxes = torch.from_numpy(boxes.astype(boxes.dtype.newbyteorder("="), order="C"))
    found = boxes if boxes.is_floating_point() else boxes.double()
    if not bool((found[:, 2:] >= found[:, :2]).all()) or not bool(found.isfinite().all()):
        raise InputError(f"{name} must be finite boxes x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got one that is not")
    return found
