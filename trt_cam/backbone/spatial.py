"""Models without attention rows of their own: maps at the end of ``forward_features``, or read by a class token."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from trt_cam.backbone.anatomy import Backbone, count_classes
from trt_cam.errors import InputError, UnsupportedModelError

OF_ANY = frozenset({"features", "activation", "gradient", "forward", "replay"})
"""What can be observed of most families; ``Backbone.gives``."""

BRANCHED = frozenset({"CrossVit", "CoaT"})
"""Transformers whose classifier reads several grids: no one map stands for the model."""


def reduced_grid(model: Any, height: int, width: int) -> tuple[int, int]:
    """Patch grid of a model whose ``feature_info`` says how many pixels a last step has, or which size it takes."""
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    strict = getattr(getattr(model, "patch_embed", None), "strict_img_size", type(model).__name__ != "Xcit")
    if fixed is not None and strict and (height, width) != tuple(fixed):
        raise InputError(
            f"images of {fixed[0]} x {fixed[1]} pixels were needed by {type(model).__name__}, got {height} x {width}; "
            "resize them, or build the model with img_size=(height, width)"
        )
    step = int(model.feature_info[-1]["reduction"])
    return -(-height // step), -(-width // step)


def read_by_token(model: Any) -> Backbone | None:
    """Other timm transformers whose classifier reads a class token: ConViT, TNT, PiT, MViTv2's, parallel blocks.

    Gradients of a layer are what can be had of them: the input of the last attention where it has a norm, else the
    output of the block before the last.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "feature_info")):
        return None
    token = getattr(model, "global_pool", "") == "token" and getattr(model, "cls_token", None) is not None
    if not token or type(model).__name__ in BRANCHED:
        return None
    places = [("blocks", "blocks"), ("stages", "stages.{}.blocks"), ("transformers", "transformers.{}.blocks")]
    name, path = next((place for place in places if hasattr(model, place[0])), ("", ""))
    stages = getattr(model, name, ())
    path = path.format(len(stages) - 1)
    blocks = model.get_submodule(path) if stages else ()
    last = len(blocks) - 1
    if last < 1:
        return None
    norm = next((one for one in ("norm1", "norm_out", "in_norm") if hasattr(blocks[last], one)), None)
    prefix = getattr(model, "num_prefix_tokens", None) or int(model.cls_token.shape[1])
    return Backbone(
        model=model,
        family="class-token",
        prefix=prefix,
        pooling="token",
        layer=f"{path}.{last - 1}" if norm is None else f"{path}.{last}.{norm}",
        gives=OF_ANY - {"features"},
        grid_of=partial(reduced_grid, model),
    )


def timm_spatial(model: nn.Module) -> Backbone | None:
    """Any other timm model whose ``forward_features`` is a map or its tokens: CNNs, and hierarchical transformers."""
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head") and hasattr(model, "num_features")):
        return None
    if type(model).__name__ in BRANCHED:
        raise UnsupportedModelError(
            f"a model with one grid of patches was needed, but the classifier of {type(model).__name__} reads several; "
            "use a plain or hierarchical timm transformer, or a CNN"
        )
    middle = conv_stages(model)
    gives = OF_ANY | ({"classifier"} if count_classes(model) else set())
    return Backbone(
        model=model,
        family="spatial",
        prefix=getattr(model, "num_prefix_tokens", 0) or 0,
        pooling="avg",
        layer="forward_features",
        middle=middle,
        gives=frozenset(gives | ({"middle"} if middle else set())),
        channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
        grid_of=partial(reduced_grid, model) if getattr(model, "feature_info", None) else None,
    )


def conv_stages(model: nn.Module) -> tuple[str, ...]:
    """The two stages before the last one of a CNN: middle features carry an object's extent, the last ones do not."""
    for container in ("blocks", "stages", "layers"):
        stages = getattr(model, container, None)
        if isinstance(stages, (nn.Sequential, nn.ModuleList)) and len(stages) > 2:
            return tuple(f"{container}.{index}" for index in (len(stages) - 3, len(stages) - 2))
    return tuple(name for name in ("layer2", "layer3") if hasattr(model, name))


def trunk_stages(model: nn.Module) -> tuple[str, ...]:
    """The same of a hybrid's convolutional trunk, at ``patch_embed.trunk``; none for other transformers."""
    trunk = getattr(getattr(model, "patch_embed", None), "trunk", None)
    return tuple(f"patch_embed.trunk.{name}" for name in conv_stages(trunk)) if isinstance(trunk, nn.Module) else ()
