"""TS-CAM's network: a vision transformer whose classifier is a convolution over its patch tokens (arXiv:2103.14862)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trt_cam.backbone import class_names, describe, preprocessing
from trt_cam.errors import UnsupportedModelError
from trt_cam.models.heads import ConvHead, width_of
from trt_cam.models.official import architecture, stripped
from trt_cam.models.recipes import build_backbone
from trt_cam.models.sharing import Shareable
from trt_cam.models.weights import load_tensors
from trt_cam.ops._checks import check_count


class TSCAMNet(Shareable, nn.Module):
    """A timm transformer with TS-CAM's head: normed patch tokens, a 3x3 convolution, the spatial mean.

    Parameters
    ----------
    backbone
        A timm transformer, which becomes a part of this module; its own classifier is taken off.
    num_classes
        K; None takes the backbone's.

    Attributes
    ----------
    config : dict
        What belongs to the model but not to the network: thresholds, training data.
    """

    def __init__(self, backbone: nn.Module, num_classes: int | None = None) -> None:
        super().__init__()
        parts = describe(backbone)
        if "tokens" not in parts.gives:
            raise UnsupportedModelError(
                f"TS-CAM needs a timm transformer with global attention, got {type(parts.model).__name__}; "
                "for other models use create_explainer('cam', model)"
            )
        self.num_classes = parts.num_classes if num_classes is None else num_classes
        check_count(self.num_classes, "num_classes", 1)
        self.classes = class_names(parts.model) if self.num_classes == parts.num_classes else None
        self.preprocessing = preprocessing(parts.model)
        self.config: dict[str, Any] = {}
        parts.model.reset_classifier(0)  # type: ignore[operator]
        self.backbone = parts.model
        self.head = ConvHead(width_of(parts), self.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, K)."""
        tokens = self.backbone.forward_features(images)  # type: ignore[operator]
        grid_size = describe(self.backbone).grid_size(*images.shape[-2:])
        patches = tokens[:, -grid_size[0] * grid_size[1] :]  # (B, N, D)
        return self.head.logits(patches.transpose(1, 2).unflatten(2, grid_size))

    @classmethod
    def from_official(cls, state_dict: Mapping[str, Any], *, num_heads: int | None = None) -> TSCAMNet:
        """Load a checkpoint of the TS-CAM authors; arguments as ``TRTLocalizer.from_official``."""
        tensors = stripped(state_dict, {"patch_embed.proj.weight": 4, "cls_token": 3, "pos_embed": 3, "head.weight": 4})
        named = {name if name.startswith("head.") else f"backbone.{name}": tensor for name, tensor in tensors.items()}
        backbone = build_backbone({"builder": "vit", "settings": architecture(named, num_heads)}, 0)
        net = cls(backbone, named["head.weight"].shape[0])
        load_tensors(net, named, "the checkpoint")
        return net.eval()
