"""Faithfulness of heat maps: what a classifier answers when what they mark is shown, hidden or slightly changed.

All take heat (B, H, W) at the size of the model's input and answer with one number for each image, (B,). A ``forward``
is a function from images (n, 3, H, W) to logits (n, K); it is called with at most ``batch_size`` images.
What does not fit together, or is not finite, is an `InputError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops._checks import check_choice, check_count, check_finite, check_inside, check_range
from trt_cam.ops.precision import at_least_float32

Forward = Callable[[Tensor], Tensor]
Baseline = Literal["blur", "zero"]
BLUR = (11, 5.0)  # side of the kernel and its sigma in pixels, as the authors of RISE


def insertion(
    forward: Forward,
    images: Tensor,
    heat: Tensor,
    target: Tensor,
    *,
    steps: int = 50,
    baseline: Baseline = "blur",
    batch_size: int = 32,
) -> Tensor:
    """Area under the class's probability while pixels are inserted, the hottest first (RISE, arXiv:1806.07421).

    Parameters
    ----------
    images : (B, 3, H, W)
        Preprocessed.
    heat : (B, H, W)
    target : (B,) int64
    steps
        The share of pixels shown is 0, 1 / steps, ..., 1.
    baseline
        What is shown of the others: "blur", the image blurred, or "zero", the mean colour.

    Returns
    -------
    (B,) in [0, 1], more is better
    """
    check(images, heat, target, batch_size)
    return _curve(forward, background(images, baseline), images, heat, target, steps, batch_size)


def deletion(
    forward: Forward,
    images: Tensor,
    heat: Tensor,
    target: Tensor,
    *,
    steps: int = 50,
    baseline: Baseline = "zero",
    batch_size: int = 32,
) -> Tensor:
    """Area under the class's probability while pixels are deleted, the hottest first; as insertion, less is better."""
    check(images, heat, target, batch_size)
    return _curve(forward, images, background(images, baseline), heat, target, steps, batch_size)


def average_drop(
    forward: Forward, images: Tensor, heat: Tensor, target: Tensor, *, batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """What the class loses when only what is hot is shown (Grad-CAM++, arXiv:1710.11063)::

        drop = max(0, p(x) - p(x * heat)) / p(x)      increase = 1 where p(x * heat) > p(x), else 0

    Returns
    -------
    drop, increase : (B,) each
        In [0, 1]; averaged over images they are the paper's numbers, without its factor of 100. Less drop is better.
    """
    check(images, heat, target, batch_size)
    whole = probability(forward, images, target, batch_size)
    seen = probability(forward, images * heat[:, None].to(images), target, batch_size)
    drop = (whole - seen).clamp(min=0) / whole.clamp(min=torch.finfo(whole.dtype).tiny)
    return drop, (seen > whole).to(whole)


def pointing_game(heat: Tensor, boxes: Sequence[Any], *, tolerance: float = 15.0) -> Tensor:
    """Whether the hottest pixel lies in a box (Zhang et al., arXiv:1608.00507).

    Parameters
    ----------
    heat : (B, H, W)
        Of equal maxima the first counts.
    boxes
        (M, 4) for each image: x0, y0, x1, y1 in pixels of the heat, far edge exclusive.
    tolerance
        Pixels by which the maximum may miss a box, 15 in the paper.

    Returns
    -------
    (B,) of 0 and 1; 0 for a flat map
    """
    check_range(tolerance, "tolerance", 0)
    rows = checked_boxes(heat, boxes)
    at = heat.flatten(1).argmax(dim=1)
    hits = []
    for index, each in enumerate(rows):
        x, y = float(at[index] % heat.shape[2]), float(at[index] // heat.shape[2])
        aside = torch.stack([each[:, 0] - x, x - (each[:, 2] - 1)]).amax(dim=0).clamp(min=0)
        above = torch.stack([each[:, 1] - y, y - (each[:, 3] - 1)]).amax(dim=0).clamp(min=0)
        flat = bool(heat[index].amax() == heat[index].amin())
        hits.append(0.0 if flat else float((aside**2 + above**2 <= tolerance**2).any()))
    return torch.tensor(hits, dtype=heat.dtype, device=heat.device)


def energy_in_box(heat: Tensor, boxes: Sequence[Any]) -> Tensor:
    """Share of the heat that lies in the boxes, the energy-based pointing game (Score-CAM, arXiv:1910.01279).

    Arguments as in `pointing_game`; edges between pixels are rounded.

    Returns
    -------
    (B,) in [0, 1], more is better; 0 for a map without heat
    """
    shares = []
    for one, each in zip(heat, checked_boxes(heat, boxes), strict=True):
        inside = torch.zeros_like(one, dtype=torch.bool)
        for x0, y0, x1, y1 in each.round().long().tolist():
            inside[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        total = one.clamp(min=0).sum()
        shares.append(one.clamp(min=0)[inside].sum() / total if total > 0 else total)
    return torch.stack(shares)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor], images: Tensor, *, radius: float = 0.02, samples: int = 10, seed: int = 0
) -> Tensor:
    """How much a map changes when the image hardly does (Yeh et al., NeurIPS 2019, arXiv:1901.09392)::

        max over samples of |map(x + e) - map(x)| / |map(x)|, e uniform in [-radius, radius] for every number of x

    Parameters
    ----------
    explain
        From images (B, 3, H, W) to maps (B, h, w).
    radius
        In units of the preprocessed image.
    samples, seed
        How many changes are tried for each image, and the seed of their random numbers.

    Returns
    -------
    (B,), less is better; 0 where the map is zero and stays so
    """
    check_count(samples, "samples", 1)
    check_inside(radius, "radius", 0)
    generator = torch.Generator().manual_seed(seed)
    plain = explain(images).flatten(1)
    length = plain.norm(dim=1).clamp(min=torch.finfo(plain.dtype).tiny)
    worst = torch.zeros_like(length)
    for _ in range(samples):
        noise = (torch.rand(images.shape, generator=generator, dtype=torch.float64) * 2 - 1) * radius
        changed = explain(images + noise.to(images)).flatten(1)
        worst = torch.maximum(worst, (changed - plain).norm(dim=1) / length)
    return worst


def faithfulness(
    explain: Any,
    images: Tensor,
    target: Any = None,
    *,
    boxes: Sequence[Any] | None = None,
    refine: str | None = None,
    steps: int = 50,
    samples: int = 10,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """All of them for one bound explainer.

    Parameters
    ----------
    explain
        From ``create_explainer``.
    images : (B, 3, H, W)
    target
        As ``explain`` takes it, class by class; None is the predicted class.
    boxes
        (M, 4) for each image, on the model's input, for the pointing game and the energy in boxes.
    refine, steps, samples, batch_size
        Of ``explain``, and of the functions above.

    Returns
    -------
    dict of (B,) tensors
        "insertion", "deletion", "average drop", "average increase", "max-sensitivity", and with boxes "pointing game"
        and "energy in box".
    """
    found = explain(images, target, refine=refine)
    if found.target is None or found.target.ndim != 1:
        raise InputError("faithfulness needs one class for each image, got none or several; give target")
    heat, target = found.resize(mode="bilinear"), found.target

    def forward(many: Tensor) -> Tensor:
        return explain.rank(many)  # type: ignore[no-any-return]

    def small(many: Tensor) -> Tensor:
        return explain(many, target, refine=refine).resize(found.grid_size)  # type: ignore[no-any-return]

    drop, increase = average_drop(forward, images, heat, target, batch_size=batch_size)
    result = {
        "insertion": insertion(forward, images, heat, target, steps=steps, batch_size=batch_size),
        "deletion": deletion(forward, images, heat, target, steps=steps, batch_size=batch_size),
        "average drop": drop,
        "average increase": increase,
        "max-sensitivity": max_sensitivity(small, images, samples=samples),
    }
    if boxes is not None:
        result |= {"pointing game": pointing_game(heat, boxes), "energy in box": energy_in_box(heat, boxes)}
    return result


def probability(forward: Forward, images: Tensor, target: Tensor, batch_size: int) -> Tensor:
    """Probability (n,) of each image's class, at least float32, a batch at a time."""
    found = []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            chances = at_least_float32(forward(images[start : start + batch_size])).softmax(dim=1)
            found.append(chances.gather(1, target[start : start + batch_size, None])[:, 0])
    return torch.cat(found)


def _curve(
    forward: Forward, start: Tensor, end: Tensor, heat: Tensor, target: Tensor, steps: int, batch_size: int
) -> Tensor:
    """Trapezoid area under the probability while pixels go over from ``start`` to ``end``, the hottest first."""
    check_count(steps, "steps", 1)
    pixels = heat[0].numel()
    counts = [round(pixels * step / steps) for step in range(steps + 1)]
    areas = []
    for index in range(len(heat)):
        order = heat[index].flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(pixels, device=order.device)).view_as(heat[index])
        scores = []
        for first in range(0, steps + 1, batch_size):
            share = torch.tensor(counts[first : first + batch_size], device=rank.device)
            gone = (rank < share[:, None, None])[:, None]  # (n, 1, H, W)
            mixed = torch.where(gone, end[index], start[index])
            scores.append(probability(forward, mixed, target[index].expand(len(mixed)), batch_size))
        areas.append(torch.trapezoid(torch.cat(scores), dx=1 / steps))
    return torch.stack(areas)


def background(images: Tensor, baseline: str) -> Tensor:
    """What is shown in place of an image's pixels."""
    check_choice(baseline, "baseline", get_args(Baseline))
    if baseline == "zero":
        return torch.zeros_like(images)
    side, sigma = BLUR
    line = torch.exp(-0.5 * ((torch.arange(side, device=images.device) - side // 2) / sigma) ** 2)
    line = (line / line.sum()).to(images.dtype)
    padded = F.pad(images, [side // 2] * 4, mode="replicate")
    rows = F.conv2d(padded, line.view(1, 1, 1, side).expand(3, 1, 1, side), groups=3)
    return F.conv2d(rows, line.view(1, 1, side, 1).expand(3, 1, side, 1), groups=3)


def check(images: Tensor, heat: Tensor, target: Tensor, batch_size: int) -> None:
    """Refuse no image, heat of another size or not finite, and targets that are not one for each image."""
    check_count(batch_size, "batch_size", 1)
    if not len(images):
        raise InputError(f"at least one image was needed, got {tuple(images.shape)}")
    wanted = (len(images), *images.shape[-2:])
    if heat.shape != wanted:
        raise InputError(
            f"heat must be (B, H, W) at the images' size, {wanted}, got {tuple(heat.shape)}; use explanation.resize()"
        )
    check_finite(heat, "heat")
    if target.shape != (len(images),):
        raise InputError(f"target must be one for each of {len(images)} images, got {tuple(target.shape)}")


def checked_boxes(heat: Tensor, boxes: Sequence[Any]) -> list[Tensor]:
    """Boxes (M, 4) of each map as float tensors."""
    rows = [torch.as_tensor(one, dtype=torch.float64).reshape(-1, 4) for one in boxes]
    if heat.ndim != 3 or len(rows) != len(heat):
        came = f"{tuple(heat.shape)} and {len(rows)}"
        raise InputError(f"heat must be (B, H, W) and boxes (M, 4) for each of its maps, got {came}")
    check_finite(heat, "heat")
    for index, one in enumerate(rows):
        if not len(one) or not bool((one[:, 2:] > one[:, :2]).all()) or not bool(one.isfinite().all()):
            raise InputError(
                f"boxes must be finite, x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {one.tolist()} at {index}"
            )
    return rows
