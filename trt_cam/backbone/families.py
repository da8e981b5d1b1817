"""Recognising a model: one function per family names its parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from torch import nn

from trt_cam.backbone.anatomy import Backbone, unwrap
from trt_cam.backbone.class_attention import class_attention
from trt_cam.backbone.huggingface import huggingface_vit
from trt_cam.backbone.spatial import OF_ANY, timm_spatial, trunk_stages
from trt_cam.backbone.tokens import (
    OF_ATTENTION,
    encoder_vit,
    middle_blocks,
    naflex_vit,
    plain_transformer,
    read_by_token,
)
from trt_cam.errors import InputError, UnsupportedModelError


def describe(model: nn.Module) -> Backbone:
    """Recognise a model.

    Parameters
    ----------
    model
        A timm transformer or timm CNN, or torchvision's VisionTransformer, wrapped or not.

    Raises
    ------
    UnsupportedModelError
        No family fits.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a model must be a torch.nn.Module, got {type(model).__name__}; make one with timm")
    inner = unwrap(model)
    for recognise in FAMILIES:
        found = recognise(inner)
        if found is not None:
            return found
    raise UnsupportedModelError(
        f"no model family fits {type(inner).__name__}: needed a timm model (forward_features and forward_head), "
        "a ViT, DeiT or DINOv2 of transformers, or torchvision's VisionTransformer; pass one of these"
    )


def timm_transformer(model: Any) -> Backbone | None:
    """ViT, DeiT, DINOv2, SigLIP, hybrids (timm's VisionTransformer), EVA-02 and DINOv3 (Eva), BEiT, relpos."""
    kinds = timm_kinds()
    family = next((name for name, kind in kinds.items() if isinstance(model, kind)), None)
    if family is None:
        return None
    if not len(model.blocks):
        return None
    return plain_transformer(
        model, family, getattr(model, "cls_token", None), partial(timm_grid, model), trunk_stages(model)
    )


def timm_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid of an input, or one line that says which sizes the model takes."""
    embed = model.patch_embed
    fixed = embed.img_size if getattr(embed, "strict_img_size", False) else None
    if fixed is not None and (height, width) != tuple(fixed):
        raise InputError(
            f"images of {fixed[0]} x {fixed[1]} pixels were needed by {type(model).__name__}, got {height} x {width}; "
            "resize them, or build the model with img_size=(height, width) or dynamic_img_size=True"
        )
    step = embed.feat_ratio(as_scalar=False)
    if not getattr(embed, "dynamic_img_pad", True) and (height % step[0] or width % step[1]):
        raise InputError(
            f"image sides that are multiples of {step[0]} and {step[1]} pixels were needed by "
            f"{type(model).__name__}, got {height} x {width}; resize them, or build the model with dynamic_img_pad=True"
        )
    return tuple(embed.dynamic_feat_size((height, width)))  # type: ignore[return-value]


def torchvision_vit(model: Any) -> Backbone | None:
    """torchvision.models.VisionTransformer, whose attention is ``nn.MultiheadAttention``."""
    if type(model).__name__ != "VisionTransformer" or not hasattr(model, "encoder") or not hasattr(model, "conv_proj"):
        return None
    blocks = tuple(model.encoder.layers)
    gives = {*OF_ANY, *OF_ATTENTION, "middle", "classifier"}
    return Backbone(
        model=model,
        family="torchvision-vit",
        blocks=blocks,
        attentions=tuple(block.self_attention for block in blocks),
        prefix=1,
        pooling="token",
        layer=f"encoder.layers.encoder_layer_{len(blocks) - 1}.ln_1",
        final="encoder.ln",
        middle=middle_blocks("encoder.layers.encoder_layer_", len(blocks)),
        gives=frozenset(gives),
        grid_of=partial(torchvision_grid, model),
    )


def torchvision_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid of the one size that the model takes."""
    if (height, width) != (model.image_size, model.image_size):
        raise InputError(
            f"images of {model.image_size} x {model.image_size} pixels were needed by torchvision's "
            f"{type(model).__name__}, got {height} x {width}; resize them"
        )
    return height // model.patch_size, width // model.patch_size


FAMILIES: tuple[Callable[[nn.Module], Backbone | None], ...] = (
    timm_transformer,
    torchvision_vit,
    huggingface_vit,
    class_attention,
    naflex_vit,
    encoder_vit,
    read_by_token,
    timm_spatial,
)


@lru_cache(maxsize=1)
def timm_kinds() -> dict[str, type[nn.Module]]:
    """timm's classes of plain transformers, by family name."""
    from timm.models.beit import Beit
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_relpos import VisionTransformerRelPos

    return {"vit": VisionTransformer, "eva": Eva, "beit": Beit, "relpos": VisionTransformerRelPos}
