"""Models without attention rows of their own: a map, or its tokens, at the end of ``forward_features``."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from trt_cam.backbone.anatomy import Backbone, count_classes
from trt_cam.errors import InputError, UnsupportedModelError

OF_ANY = frozenset({"features", "activation", "gradient", "forward", "replay"})
"""What can be observed of most families; ``Backbone.gives``."""

SEVERAL_GRIDS = frozenset({"CrossVit", "CoaT", "EfficientViM", "EfficientViMDistilled"})
"""Models whose classifier reads several grids: no one map stands for the model."""

HEADLESS = frozenset({"DeepseekVitEncoder", "Qwen3VitEncoder", "Gemma4VitEncoder", "MobileNetV5Encoder"})
"""Encoders of language models: their ``forward_head`` only raises."""


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


def timm_spatial(model: nn.Module) -> Backbone | None:
    """Any other timm model whose ``forward_features`` is a map or its tokens: CNNs, and hierarchical transformers."""
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head") and hasattr(model, "num_features")):
        return None
    if type(model).__name__ in SEVERAL_GRIDS:
        raise UnsupportedModelError(
            f"a model with one grid of patches was needed, but the classifier of {type(model).__name__} reads several; "
            "use a plain or hierarchical timm transformer, or a CNN"
        )
    if type(model).__name__ in HEADLESS:
        raise UnsupportedModelError(
            f"a model whose forward_head pools its features was needed, but {type(model).__name__} is an encoder "
            "without one; use its timm model with a classifier"
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
