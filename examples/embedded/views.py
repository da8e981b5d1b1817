"""Photos with their labels, and the two views of each that the model is trained on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from timm.data import ImageNetInfo
from torch import Tensor

SIZES = {"whole": 352, "hard": 288}  # pixels of the two views; 22 x 22 and 18 x 18 tokens


def collect(data: Path) -> list[tuple[Path, int]]:
    """Photos with their ImageNet class, -1 where the label is none of ImageNet's; in an order that mixes them."""
    index = {wnid: number for number, wnid in enumerate(ImageNetInfo().label_names())}
    labelled = [*sorted(data.glob("ilsvrc-10/train/*/*.JPEG")), *sorted(data.glob("imagenet-1k-sample/*/*.JPEG"))]
    others = sorted(data.glob("caltech-101/101_ObjectCategories/*/*.jpg"))
    photos = [(path, index[path.parent.name]) for path in labelled]
    photos += [(path, -1) for path in others if not path.parent.name.startswith("BACKGROUND")]
    random.Random(0).shuffle(photos)
    return photos


def rarity(photos: list[tuple[Path, int]], rare: float) -> np.ndarray:
    """How often each photo is drawn, (N,), sum 1: those outside the ten classes ``rare`` times as often."""
    weights = np.array([1.0 if "ilsvrc-10" in path.parts else rare for path, _ in photos])
    return weights / weights.sum()


def hard_view(photo: Image.Image, other: Callable[[], Image.Image], draw: random.Random) -> tuple[Image.Image, Any]:
    """A crop, or the photo made small on another background; and (x0, y0, x1, y1, mirrored) in the photo's frame."""
    side = SIZES["hard"]
    mirrored = draw.random() < 0.5
    view, box = (cropped if draw.random() < 0.5 else shrunk)(photo, other, draw, side)
    if mirrored:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(draw.uniform(0.7, 1.3))
    return view, (*box, float(mirrored))


def cropped(photo: Image.Image, other: Any, draw: random.Random, side: int) -> tuple[Image.Image, Any]:
    """15 to 100 % of the photo, its sides at most 1.4 : 1 of the photo's."""
    for _ in range(10):
        area, ratio = draw.uniform(0.15, 1), math.exp(draw.uniform(math.log(0.7), math.log(1.4)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= 1 and h <= 1:
            break
    else:
        w = h = 0.8
    x0, y0 = draw.uniform(0, 1 - w), draw.uniform(0, 1 - h)
    width, height = photo.size
    pixels = (x0 * width, y0 * height, (x0 + w) * width, (y0 + h) * height)
    return photo.resize((side, side), Image.Resampling.BICUBIC, box=pixels), (x0, y0, x0 + w, y0 + h)


def shrunk(
    photo: Image.Image, other: Callable[[], Image.Image], draw: random.Random, side: int
) -> tuple[Image.Image, Any]:
    """The whole photo at 35 to 90 % of the view's side, on its own blur, another photo's, or a colour."""
    scale, ratio = draw.uniform(0.35, 0.9), math.exp(draw.uniform(-0.25, 0.25))
    w, h = min(scale * ratio, 0.95), min(scale / ratio, 0.95)
    kind = draw.random()
    if kind < 0.5:
        view = photo.resize((side, side)).filter(ImageFilter.GaussianBlur(draw.uniform(8, 25)))
    elif kind < 0.85:
        view = other().resize((side, side)).filter(ImageFilter.GaussianBlur(draw.uniform(2, 20)))
    else:
        view = Image.new("RGB", (side, side), tuple(draw.randrange(256) for _ in range(3)))
    width, height = int(w * side), int(h * side)
    x, y = draw.randrange(0, side - width + 1), draw.randrange(0, side - height + 1)
    view.paste(photo.resize((width, height), Image.Resampling.BICUBIC), (x, y))
    return view, (-x / width, -y / height, (side - x) / width, (side - y) / height)


def as_input(photo: Image.Image) -> Tensor:
    """Pixels in [-1, 1], (3, H, W)."""
    return torch.from_numpy(np.asarray(photo, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)
