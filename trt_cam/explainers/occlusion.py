"""Methods that hide parts of the photo; they look at no layer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation, chunks, image_bytes, of_image, precisely, target_scores
from trt_cam.ops._checks import check_count, check_inside
from trt_cam.ops.precision import at_least_float32


@register_explainer
class Occlusion(Explainer):
    """Occlusion sensitivity (Zeiler & Fergus, ECCV 2014, arXiv:1311.2901)::

        drop_w = y(x) - y(x with window w hidden)      grid = mean of drop_w over the windows w that cover a place

    averaged over the pixels of each cell of the model's grid. One forward for each window.

    Needs more forwards. Class-specific. Signed, > 0 is evidence: hiding it lowers the score.

    Parameters
    ----------
    window, stride
        Side of the square that is hidden, and its step, in pixels; None is a seventh of the input's shorter side, and
        half of the window.
    baseline
        What a hidden pixel becomes, in normalised units: 0 is the mean colour.
    """

    name = "occlusion"
    requires = frozenset({"forward"})
    positive = True

    def __init__(self, window: int | None = None, stride: int | None = None, baseline: float = 0.0) -> None:
        for name, pixels in (("window", window), ("stride", stride)):
            if pixels is not None:
                check_count(pixels, f"{name}, if not None,", 1)
        if isinstance(baseline, bool) or not isinstance(baseline, (int, float)) or not math.isfinite(baseline):
            raise InputError(f"baseline must be a finite number, in normalised units, got {baseline!r}")
        self.window, self.stride, self.baseline = window, stride, baseline

    def grid(self, seen: Observation, target: Any) -> Tensor:
        H, W = seen.images.shape[-2:]
        side = min(min(H, W), self.window or max(1, min(H, W) // 7))
        stride = min(side, self.stride or max(1, side // 2))  # no pixel between windows
        corners = [(y, x) for y in starts(H, side, stride) for x in starts(W, side, stride)]
        whole = target_scores(seen.logits, target)
        maps = []
        for image, x in enumerate(seen.images):
            total, covered = (whole.new_zeros(H, W) for _ in range(2))
            for part in chunks(len(corners), image_bytes(seen.images)):
                hidden = x.expand(len(corners[part]), *x.shape).clone()
                for one, (top, left) in zip(hidden, corners[part], strict=True):
                    one[:, top : top + side, left : left + side] = self.baseline
                scores = target_scores(seen.forward(hidden), of_image(target, image, len(hidden)))
                for (top, left), drop in zip(corners[part], whole[image] - scores, strict=True):
                    total[top : top + side, left : left + side] += drop
                    covered[top : top + side, left : left + side] += 1
            maps.append(total / covered)
        return pooled(torch.stack(maps), seen)

    def source(self, seen: Observation) -> str:
        return "the score of perturbed inputs"


@register_explainer
class RISE(Explainer):
    """RISE (Petsiuk et al., BMVC 2018, arXiv:1806.07421)::

        M_i: ``cells`` x ``cells`` random bits, 1 with probability p, upsampled bilinearly, shifted at random
        grid = sum_i p_c(x * M_i) M_i / (n p)

    p_c is the class's probability, a callable's value as it is; averaged over the pixels of each cell of the model's
    grid. One forward for each mask.

    Needs more forwards. Class-specific. Values >= 0 for a class.

    Parameters
    ----------
    masks, cells, p, seed
        Number n of masks, cells on a side, share of cells shown, and the seed of the masks.
    """

    name = "rise"
    requires = frozenset({"forward"})

    def __init__(self, masks: int = 1000, cells: int = 7, p: float = 0.5, seed: int = 0) -> None:
        check_count(masks, "masks", 1)
        check_count(cells, "cells", 1)
        check_inside(p, "p", 0, 1)
        self.masks, self.cells, self.p, self.seed = masks, cells, p, seed

    def grid(self, seen: Observation, target: Any) -> Tensor:
        H, W = seen.images.shape[-2:]
        total = at_least_float32(seen.images.new_zeros(len(seen.images), H, W))
        bits, shifts = self.drawn((H, W))
        for part in chunks(self.masks, image_bytes(seen.images)):
            masks = self.upsampled(bits[part], shifts[part], (H, W)).to(seen.images)  # (n, H, W)
            for image, x in enumerate(seen.images):
                logits = seen.forward(x * masks[:, None])
                values = at_least_float32(logits).softmax(dim=1) if isinstance(target, Tensor) else logits
                scores = target_scores(values, of_image(target, image, len(masks)))
                with precisely(scores):
                    total[image] += torch.einsum("n,nhw->hw", scores.to(total), masks.to(total))
        return pooled(total / (self.masks * self.p), seen)

    def drawn(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Bits (n, cells, cells) and shifts (n, 2) of all masks."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(self.masks, self.cells, self.cells, generator=generator, dtype=torch.float32)
        bits = (drawn < self.p).float()
        shifts = [torch.randint(-(-side // self.cells), (self.masks,), generator=generator) for side in size]
        return bits, torch.stack(shifts, dim=1)

    def upsampled(self, bits: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (n, H, W) in [0, 1], each shifted by less than a cell."""
        H, W = size
        larger = [(self.cells + 1) * -(-side // self.cells) for side in size]
        whole = F.interpolate(bits[:, None], size=larger, mode="bilinear", align_corners=False)[:, 0]
        return torch.stack([m[y : y + H, x : x + W] for m, (y, x) in zip(whole, shifts.tolist(), strict=True)])

    def source(self, seen: Observation) -> str:
        return "the score of perturbed inputs"


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin so that they cover a length, the last one flush with its end."""
    found = list(range(0, length - side + 1, stride))
    return found if found[-1] == length - side else [*found, length - side]


def pooled(maps: Tensor, seen: Observation) -> Tensor:
    """Maps over pixels (B, H, W) averaged over the cells of the model's grid."""
    return F.adaptive_avg_pool2d(maps[:, None], seen.grid_size)[:, 0]
