"""A photo under its heat map, and the boxes on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from trt_cam.data.frames import Frame
from trt_cam.data.photos import Source, load_photo
from trt_cam.errors import InputError

BOX = (255, 255, 255)
EDGE = (0, 0, 0)


def overlay(image: Source, heat: Any, *, alpha: float = 0.5, colormap: str = "jet") -> Image.Image:
    """A photo with a heat map laid over it.

    Parameters
    ----------
    image : a photo
        Path, PIL image or (H, W, 3) uint8 RGB array.
    heat : (h, w) in [0, 1]
        Array or tensor that covers the whole photo; enlarged to it if it is smaller.
    alpha : in [0, 1]
        Share of the heat's colour: 0 is the photo, 1 the heat alone.
    colormap
        A name that matplotlib knows.

    Returns
    -------
    RGB image at the photo's size

    Raises
    ------
    InputError
        The heat has another shape, NaN or values outside [0, 1], or an option is unknown.
    """
    photo = load_photo(image)
    values = _checked(heat)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be a number from 0 to 1, got {alpha!r}")
    if values.shape != (photo.height, photo.width):
        values = np.asarray(Image.fromarray(values).resize(photo.size, Image.Resampling.BILINEAR))
    return Image.blend(photo, Image.fromarray(colours(values, colormap)), float(alpha))


def colours(values: npt.NDArray[Any], colormap: str = "jet") -> npt.NDArray[np.uint8]:
    """(H, W) in [0, 1] as (H, W, 3) uint8 by a colour map of matplotlib's."""
    import difflib

    import matplotlib

    if colormap not in matplotlib.colormaps:
        near = difflib.get_close_matches(str(colormap), list(matplotlib.colormaps), n=3)
        raise InputError(f"matplotlib has no colormap {colormap!r}; near: {', '.join(near) or 'jet, viridis, magma'}")
    table = matplotlib.colormaps[colormap](np.linspace(0, 1, 256), bytes=True)[:, :3]  # (256, 3)
    picked: npt.NDArray[np.uint8] = table[np.rint(values * 255).astype(np.uint8)]
    return picked


def draw_boxes(picture: Image.Image, boxes: npt.NDArray[np.int64], caption: str = "") -> Image.Image:
    """The picture with (M, 4) boxes around the pixels they hold, and a caption at the first."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(min(picture.size) / 150))
    for x0, y0, x1, y1 in boxes.tolist():
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=EDGE, width=width + 2)
        if min(x1 - x0, y1 - y0) > 2:
            pen.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=BOX, width=width)
    if caption:
        _write(pen, caption, boxes, picture.size)
    return drawn


def draw_result(
    photo: Image.Image,
    heat: npt.NDArray[np.float32],
    frame: Frame,
    boxes: npt.NDArray[np.int64],
    caption: str,
    *,
    max_side: int | None = None,
) -> Image.Image:
    """A photo, heat on the model's input and boxes on the photo as one picture, no larger than ``max_side``."""
    height, width = frame.photo
    ratio = min(1.0, (max_side or max(height, width)) / max(height, width))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    (sy, sx), small = frame.scale, (size[0] / height, size[1] / width)
    reduced = Frame(size, frame.input, (sy / small[0], sx / small[1]), frame.offset)
    picture = photo if ratio == 1 else photo.resize((size[1], size[0]), Image.Resampling.BOX)
    picture = overlay(picture, np.clip(reduced.heat_to_photo(heat), 0, 1))
    moved = np.rint(boxes * np.array([small[1], small[0]] * 2)).astype(np.int64)
    near = np.minimum(moved[:, :2], (size[1] - 1, size[0] - 1))
    moved = np.concatenate([near, np.maximum(moved[:, 2:], near + 1)], axis=1)  # at least a pixel, and inside
    return draw_boxes(picture, moved, caption)


def _write(pen: ImageDraw.ImageDraw, text: str, boxes: npt.NDArray[np.int64], size: tuple[int, int]) -> None:
    height = max(10, min(size) // 22)
    font = ImageFont.load_default(height)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    x, y = (boxes[0, 0], boxes[0, 1] - bottom - 6) if len(boxes) else (0, 0)
    x, y = max(0, min(int(x), round(size[0] - right - 8))), max(0, int(y))
    pen.rectangle((x, y, x + right + 8, y + bottom + 6), fill=EDGE)
    pen.text((x + 4 - left, y + 2), text, fill=BOX, font=font)


def _checked(heat: Any) -> npt.NDArray[np.float32]:
    if hasattr(heat, "detach"):
        heat = heat.detach().cpu().float().numpy()
    values = np.asarray(heat)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub":
        raise InputError(f"heat must be (H, W) numbers in [0, 1], got {values.dtype} of shape {values.shape}")
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise InputError(f"heat must be in [0, 1], got {low:g} to {high:g}; stretch it with (h - min) / (max - min)")
    return values
