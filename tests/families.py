"""Tiny models, random weights, one or more of every family that the library observes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import timm
import torch
from torch import Tensor, nn


def no_onednn() -> AbstractContextManager[None]:
    """For bfloat16 on the CPU: oneDNN dies on virtual machines that show AMX but do not grant it."""
    return torch.backends.mkldnn.flags(enabled=False)


TINY = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": 7}


def family(name: str, **settings: Any) -> Callable[..., nn.Module]:
    def build(**more: Any) -> nn.Module:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, **{**TINY, **settings, **more})
        return shaken(model).eval()

    return build


def shaken(model: nn.Module) -> nn.Module:
    """Weights that a test cannot pass by accident: no zeros, no ones, no tiny LayerScale, attention with structure."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (1.0 if "norm" in name and "weight" in name else 0.3 * ("gamma" in name)))
            elif "pos_embed" in name or "token" in name or "table" in name or "latent" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
    return model


def image_size(model: nn.Module) -> tuple[int, int]:
    """Pixels (H, W) that a tiny model wants."""
    return tuple(model.patch_embed.img_size or (64, 64)) if hasattr(model, "patch_embed") else (64, 64)


def torchvision_vit(depth: int = 3) -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(64, 16, num_layers=depth, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=7).eval()


SMALL: dict[str, dict[str, Any]] = {
    "score-cam": {"channels": 3},
    "ss-cam": {"channels": 2, "samples": 2},
    "is-cam": {"channels": 2, "samples": 2},
    "ablation-cam": {"channels": 3},
    "occlusion": {"window": 32, "stride": 32},
    "rise": {"masks": 4},
    "smooth-grad-cam++": {"samples": 2},
}
"""Settings of the methods that cost many forwards."""


class SmallCNN(nn.Module):
    """A convolution to one place for 8 x 8 pixels and a ReLU in place, with the parts that timm's CNNs have."""

    num_classes, num_features = 7, 5

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 5, 8, 8), nn.ReLU(inplace=True), nn.Linear(5, 7)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN().eval()


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "vit": family("vit_tiny_patch16_224"),
    "deit": family("deit_tiny_patch16_224"),
    "deit-distilled": family("deit_tiny_distilled_patch16_224"),
    "deit3": family("deit3_small_patch16_224"),
    "dinov2": family("vit_small_patch14_dinov2", img_size=56),
    "dinov2-registers": family("vit_small_patch14_reg4_dinov2", img_size=56),
    "siglip": family("vit_base_patch16_siglip_224"),
    "vit-avg": family("vit_tiny_patch16_224", global_pool="avg"),
    "eva02": family("eva02_tiny_patch14_224", img_size=56),
    "dinov3": family("vit_small_patch16_dinov3"),
    "rope-mixed": family("vit_small_patch16_rope_mixed_224"),
    "beit": family("beit_base_patch16_224"),
    "beit-shared": family("beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    "hybrid": family("vit_tiny_r_s16_p8_224", patch_size=2),
}
