"""Checkpoints of the TRT authors' code (classes TRT and TRTFuse): other names for the same network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trt_cam.errors import InputError, WeightsError
from trt_cam.models.recipes import build_backbone
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.weights import load_tensors

RENAMED = (
    ("score_layer.", "tpsm.block."),
    ("score_norm.", "tpsm.norm."),
    ("score_head.", "tpsm.head."),
    ("camfuse_block.cam_tr.", "cam.block."),
    ("camfuse_block.cam_norm.", "cam.norm."),
    ("camfuse_block.cam_head.", "cam.head."),
)
NEEDED = {"patch_embed.proj.weight": 4, "cls_token": 3, "pos_embed": 3, "head.weight": 2, "score_head.weight": 2}
"""Tensors that the architecture is read from, with their numbers of axes."""


def from_official(state_dict: Mapping[str, Any], *, num_heads: int | None = None, u: float = 0.65) -> TRTLocalizer:
    """See ``TRTLocalizer.from_official``."""
    tensors = {official_name(name): tensor for name, tensor in stripped(state_dict, NEEDED).items()}
    settings = architecture(tensors, num_heads)
    backbone = build_backbone({"builder": "vit", "settings": settings}, tensors["backbone.head.weight"].shape[0])
    fused = any(name.startswith("cam.") for name in tensors)
    net = TRTLocalizer(backbone, u=u, eps=1e-6, divide=not fused, cam="branch" if fused else None)
    load_tensors(net, tensors, "the checkpoint")
    return net.eval()


def stripped(state_dict: Mapping[str, Any], needed: Mapping[str, int]) -> dict[str, Tensor]:
    """A checkpoint's tensors by the names of the authors' network.

    ``needed`` names tensors that must be there, each with its number of axes.
    """
    tensors = inner_state(state_dict)
    missing = [name for name, axes in needed.items() if name not in tensors or tensors[name].ndim != axes]
    if missing:
        raise WeightsError(
            f"a checkpoint with {list(needed)} was needed, but {missing} are missing or have other axes; "
            f"got {sorted(tensors)[:4]}; load the file that the authors' training wrote"
        )
    return tensors


def inner_state(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors without the outer "state_dict" (DeiT: "model") and the ``module.`` of data parallel training."""
    if not isinstance(state_dict, Mapping):
        raise WeightsError(
            f"a state dict was needed, got {type(state_dict).__name__}; load the file with weights_only=True"
        )
    inner = next((state_dict[name] for name in ("state_dict", "model") if name in state_dict), state_dict)
    named = inner.items() if isinstance(inner, Mapping) else ()
    return {str(name).removeprefix("module."): value for name, value in named if isinstance(value, Tensor)}


def official_name(name: str) -> str:
    """Our name of one of the authors' tensors."""
    for theirs, ours in RENAMED:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"backbone.{name}"


def architecture(tensors: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer that fit the tensors."""
    width, _, _, patch = tensors["backbone.patch_embed.proj.weight"].shape
    side = round((tensors["backbone.pos_embed"].shape[1] - 1) ** 0.5)
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"backbone\.blocks\.(\d+)\.", name))}
    if num_heads is None:
        if width % 64:
            raise InputError(
                f"num_heads was needed: width {width} is no multiple of 64, so it cannot be derived; pass it"
            )
        num_heads = width // 64
    if not isinstance(num_heads, int) or num_heads < 1 or width % num_heads:
        raise InputError(f"num_heads must be an int that divides the width {width}, got {num_heads!r}")
    return {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": num_heads,
    }
