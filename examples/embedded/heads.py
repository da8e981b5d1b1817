"""Training of the transformer and TPSM on cached features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedded.features import Cache, say
from embedded.maps import carry, otsu, schedule, stretch, warp
from embedded.recipe import Recipe
from embedded.views import SIZES
from trt_cam.models.trt import preliminary_map
from trt_cam.ops.attention import reattention_map


def run_heads(net: Any, features: Tensor, places: Tensor | None = None) -> dict[str, Tensor]:
    """What ``net`` computes after its trunk, from cached features (B, 384, Gh, Gw), with gradients.

    With ``places`` (B, n) only those patch tokens take part: training on a part of them is as good and faster.
    """
    vit = net.backbone
    tokens = vit.patch_embed.embed(features).flatten(1, 2)
    if places is not None:
        tokens = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
    tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, S, D)
    rows = []
    for block in vit.blocks[:-1]:
        rows.append(class_row(block, tokens))
        tokens = block(tokens)
    m = preliminary_map(rows, prefix=1)
    fusion, importance, keep = net.tpsm(tokens, m)
    last = vit.blocks[-1](torch.cat([tokens[:, :1], fusion[:, None].to(tokens.dtype)], dim=1))
    logits = vit.forward_head(vit.norm(last))
    importance = importance.float()
    return {
        "logits": logits,
        "m": m,
        "keep": keep,
        "importance": importance,
        "m_t": reattention_map(m, keep, importance),
    }


def class_row(block: Any, tokens: Tensor) -> Tensor:
    """Attention of the class token in one block, (B, nh, S)."""
    B, S, D = tokens.shape
    q, k, _ = block.attn.qkv(block.norm1(tokens)).view(B, S, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return ((q[:, :, :1].float() * block.attn.scale) @ k.float().transpose(-2, -1)).softmax(dim=-1)[:, :, 0]


def some_places(shape: torch.Size, share: float) -> Tensor:
    """Random places of each of B grids of N tokens, (B, share * N), in order."""
    B, N = shape
    return torch.rand(B, N).argsort(dim=1)[:, : int(share * N)].sort(dim=1).values


def nearly_mask(maps: Tensor) -> Tensor:
    """(B, N) maps in [0, 1], softly cut at Otsu's threshold."""
    return ((maps - otsu(maps)[:, None]) / 0.05).sigmoid()


def losses(seen: dict[str, Tensor], wanted: Tensor, batch: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """The class terms of the paper, and ours on m, M_T and lambda."""
    kept = wanted * seen["keep"]
    answered = kept.sum(dim=1) > 1e-4
    logits = seen["logits"].float()
    trunk = F.kl_div(logits.log_softmax(1), batch["logits"].softmax(1), reduction="batchmean")
    terms = {
        "classes": trunk + 0.5 * F.cross_entropy(logits, batch["label"]),
        "attention": divergence(seen["m"], wanted).mean(),
        "reattention": divergence(seen["m_t"], wanted).mean(),
        "importance": divergence(seen["importance"], kept)[answered].mean(),
    }
    return {name: getattr(recipe, name) * term for name, term in terms.items()}


def divergence(map_: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || map_) of maps (B, N) >= 0, both normalised to sum 1; (B,)."""
    map_ = map_ / map_.sum(dim=1, keepdim=True).clamp(min=1e-6)
    wanted = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return F.kl_div((map_ + 1e-8).log(), wanted, reduction="none").sum(dim=1)


def fit(
    named: Mapping[str, nn.Parameter],
    steps: int,
    recipe: Recipe,
    loss: Callable[[int], dict[str, Tensor]],
    rate: float | None = None,
) -> None:
    """So many updates of some parameters; ``loss`` gives the terms of a step's loss by name."""
    matrices = [p for name, p in named.items() if p.ndim > 1 and "cls_token" not in name]
    others = [p for name, p in named.items() if p.ndim <= 1 or "cls_token" in name]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    sums: dict[str, float] = {}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (rate or recipe.rate) * schedule(step, steps, 60)
        terms = loss(step)
        optimizer.zero_grad()
        sum(terms.values()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(matrices + others, 1.0)
        optimizer.step()
        sums = {name: sums.get(name, 0.0) + term.item() / 50 for name, term in terms.items()}
        if step % 50 == 49:
            say(f"step {step + 1} of {steps}: " + ", ".join(f"{name} {value:.3f}" for name, value in sums.items()))
            sums = {}


def train_heads(net: Any, cache: Cache, maps: Tensor, frequency: np.ndarray, recipe: Recipe, number: int = 0) -> None:
    """One round of training what is not the trunk, alternately on whole photos and hard views."""
    rng = np.random.default_rng((recipe.seed, number))
    torch.manual_seed(recipe.seed + number)

    def loss(step: int) -> dict[str, Tensor]:
        view, rows = step % 2, np.sort(rng.choice(len(maps), recipe.batch, replace=False, p=frequency))
        batch = {"label": cache("label", rows), "logits": cache(f"logit_{view}", rows)}
        wanted = maps[rows] if view == 0 else warp(maps[rows], cache("box", rows), SIZES["hard"] // 16)
        places = some_places(wanted.flatten(1).shape, recipe.tokens)
        seen = run_heads(net, cache(f"F_{view}", rows), places)
        return losses(seen, nearly_mask(wanted.flatten(1)).gather(1, places), batch, recipe)

    net.train()
    fit(
        {name: p for name, p in net.named_parameters() if p.requires_grad},
        recipe.samples[number] // recipe.batch,
        recipe,
        loss,
    )
    net.eval()


@torch.inference_mode()
def maps_of_heads(cache: Cache, net: Any) -> Tensor:
    """Maps for the last round: the trained heads' m and the spread class map, their geometric mean."""
    found = []
    for start in range(0, cache.count, 32):
        rows = slice(start, start + 32)
        features, seed = cache("F_0", rows), stretch(cache("C_0", rows))
        m = stretch(run_heads(net, features)["m"].view_as(seed))
        found.append(stretch((m * carry(seed, features)).sqrt()).half())
    return torch.cat(found)
