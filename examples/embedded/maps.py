"""What the transformer's attention is taught: where the evidence for the label spreads. Labels are all it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedded.features import Cache, say
from embedded.views import SIZES
from trt_cam.refine import affinity


def stretch(maps: Tensor) -> Tensor:
    """(B, Gh, Gw) to [0, 1], each for itself."""
    flat = maps.flatten(1)
    low, high = flat.amin(dim=1)[:, None, None], flat.amax(dim=1)[:, None, None]
    return (maps - low) / (high - low + 1e-9)


def carry(maps: Tensor, features: Tensor) -> Tensor:
    """One step of affinity over the trunk's stages 4 and 5, stretched to [0, 1]."""
    weights = affinity([features[:, 80:192], features[:, 192:]], maps.shape[-2:])  # (B, N, N)
    return stretch((weights @ maps.flatten(1)[..., None])[..., 0].view_as(maps))


def warp(maps: Tensor, box: Tensor, side: int) -> Tensor:
    """Maps of whole photos in the frame of the hard view, (B, side, side); 0 outside the photo."""
    at = (torch.arange(side) + 0.5) / side
    across = torch.where(box[:, 4:] > 0, 1 - at, at)
    x = box[:, 0:1] + (box[:, 2:3] - box[:, 0:1]) * across  # (B, side)
    y = box[:, 1:2] + (box[:, 3:4] - box[:, 1:2]) * at
    where = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1) * 2 - 1
    warped = F.grid_sample(maps[:, None], where, padding_mode="border", align_corners=False)[:, 0]
    return warped * ((x > 0) & (x < 1))[:, None, :] * ((y > 0) & (y < 1))[:, :, None]


def otsu(maps: Tensor, bins: int = 32) -> Tensor:
    """Otsu's threshold of each (B, N) map in [0, 1], (B,)."""
    levels = torch.linspace(0, 1, bins + 2)[1:-1]
    above = (maps[:, None] > levels[None, :, None]).float()  # (B, bins, N)
    share = above.mean(dim=-1)
    high = (above * maps[:, None]).sum(-1) / (above.sum(-1) + 1e-6)
    low = ((1 - above) * maps[:, None]).sum(-1) / ((1 - above).sum(-1) + 1e-6)
    return levels[(share * (1 - share) * (high - low) ** 2).argmax(dim=1)]


def foreground_head() -> nn.Module:
    """60,000 parameters that say from the trunk's features where an object is; used here, not shipped."""
    return nn.Sequential(
        nn.Conv2d(384, 64, 1), nn.GELU(), nn.Conv2d(64, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 1, 1)
    )


def teach_foreground(cache: Cache, maps: Tensor, mean: Tensor, std: Tensor, seed: int, steps: int = 250) -> nn.Module:
    """Train the head to predict ``maps`` (N, 22, 22) from either view."""
    torch.manual_seed(seed)
    rng, head = np.random.default_rng(seed), foreground_head()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * schedule(step, steps, 30)
        view, rows = step % 2, np.sort(rng.choice(len(maps), 32, replace=False))
        wanted = maps[rows] if view == 0 else warp(maps[rows], cache("box", rows), SIZES["hard"] // 16)
        seen = head((cache(f"F_{view}", rows) - mean) / std)[:, 0]
        loss = F.binary_cross_entropy_with_logits(seen, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """A tensor of the work folder, made if it is not there."""
    if not path.exists():
        np.save(path, make().numpy())
    return torch.from_numpy(np.load(path)).float()


def first_maps(cache: Cache) -> Tensor:
    """Label-only maps of all whole photos, (N, 22, 22) in [0, 1]: two rounds, the second with the conv head's help."""
    mean, std = standardising(cache)
    plain = kept(cache.work / "maps1.npy", lambda: torch.cat(list(next_maps(cache, None, mean, std))))
    say("maps 1: the spread class map")

    def helped() -> Tensor:
        head = teach_foreground(cache, plain, mean, std, seed=1)
        return torch.cat(list(next_maps(cache, head, mean, std)))

    return kept(cache.work / "maps2.npy", helped)


@torch.inference_mode()
def next_maps(cache: Cache, head: nn.Module | None, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
    """The label's class map, times the head's answer if there is one, spread over the affinity."""
    for start in range(0, cache.count, 32):
        rows = slice(start, start + 32)
        features, seed = cache("F_0", rows), stretch(cache("C_0", rows))
        if head is not None:
            seed = seed * head((features - mean) / std)[:, 0].sigmoid()
        yield carry(seed, features).half()


def standardising(cache: Cache) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the trunk's channels over 300 photos, each (1, 384, 1, 1)."""
    some = cache("F_0", slice(0, 300))
    return some.mean(dim=(0, 2, 3), keepdim=True), some.std(dim=(0, 2, 3)).view(1, -1, 1, 1)


@torch.no_grad()
def standardise(module: Any, cache: Cache) -> None:
    """Tell what reads the trunk's channels, by its buffers ``mean`` and ``std``, what they are like."""
    mean, std = standardising(cache)
    module.mean.copy_(mean.flatten())
    module.std.copy_(std.flatten())


def schedule(step: int, steps: int, warm: int) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine."""
    return max(1e-3, min(1.0, step / warm) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
