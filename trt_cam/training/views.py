"""What becomes of a photo before a network is trained on it, and chance that depends on nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trt_cam.backbone import Preprocessing
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import LARGE, Photo, open_photo
from trt_cam.errors import InputError
from trt_cam.ops._checks import check_choice, check_range
from trt_cam.pipeline import input_size

AUGMENTATIONS = ("none", "flip", "crop", "timm")


class View:
    """How a photo becomes an image for training; draws from the global generators of Python, NumPy and torch.

    Parameters
    ----------
    prepare
        The model's preprocessing.
    augment : "none", "flip", "crop" or "timm"
        None is what evaluations see: the photo squashed to ``size``. Flip turns half of them round. Crop squashes to
        ``resize``, takes a random part of ``size`` and turns half of them round, as the authors do for CUB. Timm is
        its ``create_transform`` with the three last options: a random part of random aspect, half of them turned
        round, the policy, and rectangles of noise.
    size : pixels, (H, W), or None for the model's own
        Of the image.
    resize : pixels, (H, W), or None for 8/7 of ``size``
        Of what "crop" takes its part from.
    scale : in (0, 1]
        Least and largest share of the photo's area in a part.
    policy : str or None
        Such as "rand-m9-mstd0.5-inc1" or "original"; None changes no colours.
    erasing : in [0, 1]
        Chance that a rectangle of noise is laid over the image.

    Raises
    ------
    InputError
        An option is unknown or out of range.
    """

    def __init__(
        self,
        prepare: Preprocessing,
        augment: str = "flip",
        *,
        size: int | tuple[int, int] | None = None,
        resize: int | tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.8, 1.0),
        policy: str | None = None,
        erasing: float = 0.0,
    ) -> None:
        check_choice(augment, "augment", AUGMENTATIONS)
        self.prepare, self.augment, self.size = prepare, augment, input_size(size, prepare.size)
        usual = round(self.size[0] * 8 / 7), round(self.size[1] * 8 / 7)
        self.resize = input_size(resize, usual) if augment == "crop" else self.size
        if self.resize[0] < self.size[0] or self.resize[1] < self.size[1]:
            raise InputError(f"resize must be at least the size of the part, {self.size}, got {self.resize}")
        self.transform = self._timm(scale, policy, erasing) if augment == "timm" else None
        plain = augment == "none"
        # Twice as large as needed, a JPEG that is decoded at a smaller scale looks the same and is read in a fraction
        # of the time; evaluations reduce none but the largest.
        self.at_least = self.size if plain else (2 * self.resize[0], 2 * self.resize[1])
        self.large = LARGE if plain else 0

    def open(self, path: Path) -> Photo:
        """A photo as far as this view needs it; errors as ``open_photo``."""
        return open_photo(path, at_least=self.at_least, large=self.large)

    def __call__(self, photo: Photo) -> Tensor:
        """(3, H, W), normalised."""
        if self.transform is not None:
            drawn: Tensor = self.transform(photo.image)
            return drawn
        pixels, _ = fit_photo(photo.image, self.resize, "squash", self.prepare.interpolation)  # (3, H', W')
        (H, W), (high, wide) = self.size, self.resize
        top, left = random.randint(0, high - H), random.randint(0, wide - W)
        image = torch.from_numpy(pixels)[:, top : top + H, left : left + W]  # (3, H, W)
        if self.augment != "none" and random.random() < 0.5:
            image = image.flip(-1)
        return self.prepare.normalize(image[None])[0].contiguous()

    def _timm(self, scale: tuple[float, float], policy: str | None, erasing: float) -> Any:
        from timm.data import create_transform

        check_range(erasing, "erasing", 0, 1)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise InputError(f"scale must be two shares of the area, in (0, 1] and the least first, got {scale!r}")
        try:
            made = create_transform(
                (3, *self.size),
                is_training=True,
                scale=scale,
                color_jitter=None,
                auto_augment=policy,
                interpolation=self.prepare.interpolation,
                mean=self.prepare.mean,
                std=self.prepare.std,
                re_prob=erasing,
                re_mode="pixel",
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise InputError(
                f"policy must be one that timm knows, such as rand-m9-mstd0.5-inc1, got {policy!r}"
            ) from error
        for step in made.transforms:
            for operation in (*getattr(step, "ops", ()), *chain(*getattr(step, "policy", ()))):
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterize
        return made


def _posterize(image: Image.Image, bits: int, **settings: Any) -> Image.Image:
    """Keep so many bits of a channel, but at least one: at its strongest timm's keeps none, which Pillow 13 refuses."""
    return ImageOps.posterize(image, min(max(bits, 1), 8))


@contextmanager
def drawing(*numbers: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch (CPU) seeded by numbers, and put back afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would seed the GPUs too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
