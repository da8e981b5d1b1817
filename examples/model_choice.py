"""Which models the table of ``model_table`` is about, and their weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

MORE = {
    "deit, distilled": ("deit_tiny_distilled_patch16_224", {}),
    "vision_transformer, patch mean": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "vision_transformer, registers": ("vit_small_patch14_reg4_dinov2", {"img_size": (84, 112), "depth": 3}),
    "vision_transformer, registers, no class token": ("vit_medium_patch16_reg4_gap_256", {"depth": 3}),
    "vision_transformer, attention pool": ("vit_base_patch16_siglip_224", {"embed_dim": 96, "depth": 3}),
    "vision_transformer, two in parallel": ("vit_small_patch16_18x2_224", {"depth": 2}),
    "vision_transformer, differential": ("vit_dwee_patch16_reg1_gap_256", {"depth": 2}),
    "vision_transformer_relpos, class token": ("vit_relpos_medium_patch16_cls_224", {"depth": 3}),
    "eva, DINOv3": ("vit_small_patch16_dinov3", {"depth": 3}),
    "mvitv2, class token": ("mvitv2_small_cls", {}),
    "byobnet, attention": ("botnet26t_256", {}),
}
"""Other models of modules whose models differ in what their classifier reads."""

SIZES = (
    (96, 128),
    (96, 144),
    (128, 192),
    (192, 256),
    (96, 96),
    (128, 128),
    (160, 160),
    (192, 192),
    (224, 224),
    (256, 256),
)
"""Sizes of input that are tried in turn."""


def modules() -> dict[str, list[str]]:
    """Names of timm's models by module."""
    from timm.models._registry import _model_to_module

    found: dict[str, list[str]] = {}
    for name in timm.list_models():
        found.setdefault(_model_to_module[name], []).append(name)
    return found


def on_meta(name: str, **settings: Any) -> nn.Module | None:
    """A model without its weights, or None if it does not take the settings."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=7, **settings).eval()
    except Exception:  # whatever a model raises for settings that it does not know
        return None


def weight(model: nn.Module | None) -> float:
    """Number of parameters."""
    return sum(one.numel() for one in model.parameters()) if model is not None else float("inf")


def smallest(names: list[str]) -> str:
    """Of these the model with the fewest parameters, that has a classifier if one of them has."""
    words = ("huge", "giant", "large", "_xl", "base", "medium")
    small = [name for name in names if name.startswith("test_")] or [
        name for name in names if not any(word in name for word in words)
    ]

    def order(name: str) -> tuple[bool, float, str]:
        model = on_meta(name)
        return getattr(model, "num_classes", 0) != 7 or name.endswith(("_enc", "_encoder")), weight(model), name

    return min(small or names, key=order)


def fitting(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Settings of the smallest form of a model, and the smallest input (H, W) that it takes: not square if it can."""
    config = timm.data.resolve_data_config({}, model=on_meta(name, **given))["input_size"]
    shallow = [{"depth": 3}] if "depth" not in given and on_meta(name, depth=3, **given) else [{}]
    for device, depth in itertools.product(("meta", "cpu"), shallow):  # some compute with real numbers
        for size in (*SIZES, config[1:]):
            for more in ({"img_size": size}, {}) if "img_size" not in given else ({},):
                settings, asked = {**given, **depth, **more}, tuple(given.get("img_size", size))
                if on_meta(name, **settings) is None:
                    continue
                with torch.device(device):
                    model = timm.create_model(name, num_classes=7, **settings).eval()
                    grid = intermediates(model, torch.zeros(1, 3, *asked))
                if grid is not None and min(grid) >= 3:
                    return settings, asked
    return given, config[1:]


def intermediates(model: Any, images: Tensor) -> tuple[int, int] | None:
    """Grid (Gh, Gw) of timm's own last map, if the model takes the images.

    That is what ``forward_features`` gives the head where it is a map, channels first: one model enlarges it there.
    """
    try:
        with torch.no_grad():
            model(images)
            last = model.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
            read = model.forward_features(images)
    except Exception:  # whatever a model raises for a size that it does not take
        return None
    last = last[0] if isinstance(last, tuple) else last
    if isinstance(read, Tensor) and read.ndim == 4 and read.shape[1] == model.num_features != read.shape[3]:
        last = read
    return (last.shape[-2], last.shape[-1])


def others() -> Iterator[tuple[str, Any]]:
    """Models that are not timm's."""
    from torchvision.models import VisionTransformer, resnet18, swin_t

    yield (
        "torchvision VisionTransformer",
        lambda: VisionTransformer(64, 16, num_layers=3, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=7),
    )
    yield "torchvision ResNet", lambda: resnet18(num_classes=7)
    yield "torchvision SwinTransformer", lambda: swin_t(num_classes=7)
    try:
        import transformers
    except ImportError:
        return
    tiny = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 64, "patch_size": 16}
    for kind in ("ViT", "DeiT", "Dinov2", "Dinov2WithRegisters", "Swin", "Beit"):
        config = getattr(transformers, f"{kind}Config")
        model = getattr(transformers, f"{kind}ForImageClassification")
        settings = {"image_size": 64, "window_size": 2} if kind == "Swin" else tiny
        yield f"transformers {kind}", lambda model=model, config=config, s=settings: model(config(**s, num_labels=7))


def lively(model: nn.Module, images: Tensor) -> nn.Module:
    """Random weights under which every branch counts: nothing is zero or 1e-5, norms of CNNs fit the images."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2 or min(parameter.shape) == 1 and parameter.ndim < 4:
                still = parameter.abs().max() < 1e-2
                parameter.add_(0.1 * noise + (0.3 if still and parameter.numel() > 1 else 0.0) * noise.abs())
            elif parameter.abs().max() < 1e-3:
                parameter.copy_(noise / parameter[0].numel() ** 0.5 / 2)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    was = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum, norm.training = 1.0, True
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, was, strict=True):
        norm.momentum, norm.training = momentum, False
    return model
