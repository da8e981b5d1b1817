"""A photo on the model's input: how it gets there, and the exact way back for boxes and heat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from trt_cam.errors import InputError

Fit = Literal["squash", "pad", "crop"]
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_PADDING = (124, 116, 104)  # ImageNet's mean colour: nearly zero once a model has normalised it


@dataclass(frozen=True)
class Frame:
    """Where a photo lies on a model's input: ``input = photo * scale + offset``, in pixels, per axis.

    Attributes
    ----------
    photo : (H, W)
        Size of the upright photo.
    input : (H, W)
        Size of the model's input.
    scale, offset : (y, x)
        Of the line above; a negative offset means that the photo is cropped.
    """

    photo: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def boxes_to_photo(self, boxes: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Boxes on the input as boxes on the photo.

        Parameters
        ----------
        boxes : (M, 4)
            ``x0, y0, x1, y1`` in input pixels, far edge exclusive.

        Returns
        -------
        (M, 4) int64
            In photo pixels: near edges rounded down, far edges up, clipped to the photo, never empty.
        """
        values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        offset = np.array([self.offset[1], self.offset[0]] * 2)
        scale = np.array([self.scale[1], self.scale[0]] * 2)
        # Rounding to 1e-6 first: 112 of 224 pixels are 55.00000000000001 of 110, and its ceiling is not meant.
        exact = np.round((values - offset) / scale, 6)
        height, width = self.photo
        near = np.clip(np.floor(exact[:, :2]), 0, [width - 1, height - 1])
        far = np.clip(np.ceil(exact[:, 2:]), near + 1, [width, height])
        return np.concatenate([near, far], axis=1).astype(np.int64)

    def content(self) -> tuple[float, float, float, float]:
        """``x0, y0, x1, y1`` of the part of the input that shows the photo."""
        (sy, sx), (oy, ox), (height, width) = self.scale, self.offset, self.input
        right, bottom = ox + self.photo[1] * sx, oy + self.photo[0] * sy
        return max(ox, 0.0), max(oy, 0.0), min(right, float(width)), min(bottom, float(height))

    def inside(self) -> npt.NDArray[np.bool_]:
        """(H, W) of the input: True where a pixel shows the photo, False on padding."""
        x0, y0, x1, y1 = self.content()
        mask = np.zeros(self.input, dtype=bool)
        mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
        return mask

    def heat_to_photo(self, heat: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """A heat map of the input as one of the photo.

        Parameters
        ----------
        heat : (h, w)
            In any resolution, covering the whole input.

        Returns
        -------
        (H, W) float32
            At the photo's size; zero where the photo was cropped away.
        """
        values = np.asarray(heat, dtype=np.float32)
        down, across = values.shape[0] / self.input[0], values.shape[1] / self.input[1]
        x0, y0, x1, y1 = self.content()
        (sy, sx), (oy, ox) = self.scale, self.offset
        left, top = round((x0 - ox) / sx), round((y0 - oy) / sy)
        right, bottom = round((x1 - ox) / sx), round((y1 - oy) / sy)
        size = (max(right - left, 1), max(bottom - top, 1))
        box = (x0 * across, y0 * down, min(x1 * across, values.shape[1]), min(y1 * down, values.shape[0]))
        part = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR, box=box))
        whole = np.zeros(self.photo, dtype=np.float32)
        whole[top : top + size[1], left : left + size[0]] = part[: self.photo[0] - top, : self.photo[1] - left]
        return whole


def frame_of(photo: tuple[int, int], size: tuple[int, int], fit: Fit = "squash") -> Frame:
    """The place of a photo of one size on an input of another.

    Parameters
    ----------
    photo, size : (H, W)
        Pixels of the upright photo and of the model's input.
    fit : "squash", "pad" or "crop"
        Squash changes the aspect; pad shows all of the photo and crop fills all of the input, both centred.

    Raises
    ------
    InputError
        ``fit`` is none of the three, or a size is not positive.
    """
    if fit not in get_args(Fit):
        raise InputError(f"fit must be one of {', '.join(get_args(Fit))}, got {fit!r}")
    if min(*photo, *size) < 1:
        raise InputError(f"sizes must be positive, got a photo of {photo} and an input of {size} (height, width)")
    ratios = size[0] / photo[0], size[1] / photo[1]
    if fit == "squash":
        return Frame(photo, size, ratios)
    ratio = min(ratios) if fit == "pad" else max(ratios)
    offsets = (size[0] - photo[0] * ratio) / 2, (size[1] - photo[1] * ratio) / 2
    return Frame(photo, size, (ratio, ratio), offsets)


def fit_photo(
    photo: Image.Image,
    size: tuple[int, int],
    fit: Fit = "squash",
    interpolation: str = "bicubic",
    *,
    photo_size: tuple[int, int] | None = None,
) -> tuple[npt.NDArray[np.float32], Frame]:
    """A photo as a model's input, before normalising.

    Parameters
    ----------
    photo : RGB
        Upright.
    size : (H, W)
        Of the model's input.
    fit : "squash", "pad" or "crop"
        As in `frame_of`.
    interpolation : "nearest", "bilinear", "bicubic" or "lanczos"
        Antialiased, as PIL does it on 8-bit pixels.
    photo_size : (H, W) or None
        Of the photo on disk, where ``photo`` is a reduced copy of it.

    Returns
    -------
    (3, H, W) float32 in [0, 1], and its Frame

    Raises
    ------
    InputError
        ``fit`` or ``interpolation`` is unknown.
    """
    if interpolation not in RESAMPLING:
        raise InputError(f"interpolation must be one of {', '.join(RESAMPLING)}, got {interpolation!r}")
    frame = frame_of(photo_size or (photo.height, photo.width), size, fit)
    x0, y0, x1, y1 = frame.content()
    (sy, sx), (oy, ox) = frame.scale, frame.offset
    reduced = photo.width / frame.photo[1], photo.height / frame.photo[0]
    near = (x0 - ox) / sx * reduced[0], (y0 - oy) / sy * reduced[1]
    far = min((x1 - ox) / sx * reduced[0], photo.width), min((y1 - oy) / sy * reduced[1], photo.height)
    left, top = round(x0), round(y0)
    shown = (max(round(x1) - left, 1), max(round(y1) - top, 1))
    part = photo.resize(shown, RESAMPLING[interpolation], box=(*near, *far))
    if shown != (size[1], size[0]):
        part = _paste(part, size, left, top)
    pixels = np.ascontiguousarray(np.asarray(part).transpose(2, 0, 1)).astype(np.float32)  # (3, H, W)
    return np.divide(pixels, 255, dtype=np.float32), frame


def _paste(part: Image.Image, size: tuple[int, int], left: int, top: int) -> Image.Image:
    canvas = Image.new("RGB", (size[1], size[0]), _PADDING)
    canvas.paste(part, (min(left, size[1] - 1), min(top, size[0] - 1)))
    return canvas
