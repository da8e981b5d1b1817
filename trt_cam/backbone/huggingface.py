"""Vision transformers of Hugging Face's transformers, recognised without importing it."""

from __future__ import annotations

from functools import partial
from typing import Any

from trt_cam.backbone.anatomy import Backbone, count_classes, unwrap
from trt_cam.backbone.spatial import OF_ANY
from trt_cam.backbone.tokens import OF_ATTENTION, middle_blocks
from trt_cam.errors import InputError

PREFIX = {"vit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 1}
"""Tokens before the patches, registers not counted, by the configuration's ``model_type``."""


def huggingface_vit(model: Any) -> Backbone | None:
    """ViT, DeiT and DINOv2 (with registers too), with a classifier or without one.

    DINOv2's classifier reads the class token beside the mean of the patches: it cannot be applied to single positions.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in PREFIX or not hasattr(model, "base_model"):
        return None
    trunk = model.base_model
    path = "" if trunk is model else f"{model.base_model_prefix}."
    where = next((one for one in ("layers", "encoder.layer", "encoder.layers") if has(trunk, one)), None)
    if where is None:
        return None
    blocks = tuple(unwrap(block) for block in trunk.get_submodule(where))
    last = len(blocks) - 1
    norm = "norm1" if hasattr(blocks[last], "norm1") else "layernorm_before"
    gives = OF_ANY | OF_ATTENTION | {"middle"}
    if count_classes(model) and kind in ("vit", "deit"):
        gives = gives | {"classifier"}
    return Backbone(
        model=model,
        family="huggingface",
        blocks=blocks,
        attentions=tuple(getattr(block.attention, "attention", block.attention) for block in blocks),
        prefix=PREFIX[kind] + getattr(model.config, "num_register_tokens", 0),
        pooling="token",
        layer=f"{path}{where}.{last}.{norm}",
        final=f"{path}layernorm",
        middle=middle_blocks(f"{path}{where}.", len(blocks)),
        gives=frozenset(gives),
        grid_of=partial(patch_grid, model),
    )


def has(model: Any, path: str) -> bool:
    """Whether there is a submodule at a dotted name."""
    for name in path.split("."):
        model = getattr(model, name, None)
    return model is not None


def patch_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid; ViT and DeiT take the size of their configuration only."""
    size, patch = model.config.image_size, model.config.patch_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if model.config.model_type in ("vit", "deit") and (height, width) != sides:
        raise InputError(
            f"images of {sides[0]} x {sides[1]} pixels were needed by {type(model).__name__}, got {height} x {width}; "
            "resize them"
        )
    return height // patch, width // patch
