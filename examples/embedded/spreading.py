"""The last maps, and the head that learns from them how far a class map spreads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from embedded.features import SISTER, Cache, say, trunk_weights
from embedded.heads import fit, run_heads
from embedded.maps import carry, standardise, stretch, warp
from embedded.recipe import Recipe
from embedded.views import SIZES, as_input
from trt_cam.models.hybrid import LiteTrunk, TrunkCam, load_lite0
from trt_cam.refine import affinity, spread


@torch.inference_mode()
def sister_maps(cache: Cache, photos: list[tuple[Path, int]], batch: int = 12) -> Iterator[Tensor]:
    """The label's class map of a larger published classifier, spread over its own affinity, (B, 22, 22) each time."""
    trunk, cam = LiteTrunk(f"tf_efficientnet_lite{SISTER}"), TrunkCam()
    load_lite0(trunk, cam, trunk_weights(SISTER))
    for start in range(0, len(photos), batch):
        rows = slice(start, start + batch)
        opened = (Image.open(path).convert("RGB") for path, _ in photos[rows])
        images = torch.stack([as_input(p.resize((SIZES["whole"],) * 2, Image.Resampling.BICUBIC)) for p in opened])
        with torch.autocast("cpu", torch.bfloat16):
            stages = trunk(images)
        maps = cam.maps(stages[-1].float(), cache("label", rows)[:, None])[:, 0]
        weights = affinity([stage.float() for stage in stages[1:3]], (maps.shape[-2], maps.shape[-1]))
        say(f"sister {start} of {len(photos)}", every=40)
        yield spread(maps, weights).half()


@torch.inference_mode()
def last_maps(cache: Cache, net: Any, sister: Tensor) -> Iterator[Tensor]:
    """Geometric mean of the heads' own m and both spread class maps' mean, sharpened, (B, 22, 22) each time."""
    for start in range(0, cache.count, 32):
        rows = slice(start, start + 32)
        features, seed = cache("F_0", rows), stretch(cache("C_0", rows))
        m = stretch(run_heads(net, features)["m"].view_as(seed))
        both = stretch(carry(seed, features) + sister[rows])
        yield sharpen((m * both).sqrt()).half()


def sharpen(maps: Tensor, amount: float = 0.7, radius: float = 1.0) -> Tensor:
    """Maps (B, Gh, Gw) less their blur, in [0, 1]: a place is a token wide, and maps are that much too soft."""
    maps = stretch(maps)
    steps = torch.arange(-3, 4, dtype=maps.dtype)
    bell = (-(steps**2) / (2 * radius**2)).exp()
    bell = bell / bell.sum()
    padded = F.pad(maps[:, None], (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, bell.view(1, 1, 1, 7)), bell.view(1, 1, 7, 1))[:, 0]
    return stretch((maps + amount * (maps - blurred)).clamp(min=0))


def teach_spreading(cam: TrunkCam, cache: Cache, maps: Tensor, recipe: Recipe) -> None:
    """Train the branch's head to carry the label's class map to where the maps (N, 22, 22) say, in either view."""
    head: Any = cam.spreader.requires_grad_(True)
    torch.manual_seed(recipe.seed)
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.reset_parameters()
    standardise(head, cache)
    rng = np.random.default_rng(recipe.seed)

    def loss(step: int) -> dict[str, Tensor]:
        view, rows = step % 2, np.sort(rng.choice(cache.count, 32, replace=False))
        wanted = maps[rows] if view == 0 else warp(maps[rows], cache("box", rows), SIZES["hard"] // 16)
        answer = head(cache(f"F_{view}", rows), cache(f"C_{view}", rows)[:, None])[:, 0]
        return {"spreading": F.binary_cross_entropy_with_logits(answer, wanted)}

    fit(dict(head.named_parameters()), recipe.spread_steps, recipe, loss, rate=2e-3)
    head.requires_grad_(False)
