"""The network that is trained, by method: how it begins, and which of its parameters a stage trains.

The beginnings are the authors': TPSM's scoring block and the CAM branch's block are copies of the pretrained last block
(the CAM branch's is not trained with the backbone, so it still is when its own stage begins), their norms of the final
norm, their linear and convolution PyTorch's; a classifier for other classes is drawn anew with a deviation of 0.02.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trt_cam.backbone import class_names, count_classes, create_timm, describe, preprocessing
from trt_cam.errors import InputError
from trt_cam.models.trt import TRTLocalizer, set_classes
from trt_cam.models.tscam import TSCAMNet
from trt_cam.models.weights import EMBEDDED, load_model
from trt_cam.training.settings import Settings

METHODS = ("trt", "ts-cam", "cam")
UNREAD = ("backbone.attn_pool.", "backbone.fc_norm.")
"""What TS-CAM's network holds but does not run: pool and norm of its backbone's own head."""


class Trainee(nn.Module):
    """A network with what each stage trains of it, run on photos.

    Parameters
    ----------
    net
        TRTLocalizer, TSCAMNet, or a classifier for "cam". Parameters that ask for no gradient are never trained.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.constant = {name for name, one in net.named_parameters() if not one.requires_grad}

    def forward(self, batch: Mapping[str, Tensor], stage: str) -> dict[str, Tensor]:
        """Logits (B, K) by branch: those that the stage's loss is of; of both branches for "joint"."""
        out = self.net(batch["images"])
        if not isinstance(self.net, TRTLocalizer):
            return {"logits": out}
        branches = {"tpsm": out.tpsm_logits} | ({} if out.cam_logits is None else {"cam": out.cam_logits})
        return branches if stage == "joint" else {stage: branches[stage]}

    def trained(self, stage: str) -> dict[str, nn.Parameter]:
        """Names and parameters of ``net`` that a stage trains."""
        idle = UNREAD if isinstance(self.net, TSCAMNet) else ()
        named = {name: one for name, one in self.net.named_parameters() if name not in self.constant}
        named = {name: one for name, one in named.items() if not name.startswith(idle)}
        if stage == "tpsm":
            return {name: one for name, one in named.items() if not name.startswith("cam.")}
        if stage == "cam":
            return {name: one for name, one in named.items() if name.startswith("cam.")}
        return named

    def begin(self, stage: str) -> dict[str, nn.Parameter]:
        """Let a stage train its parameters and no others, and return them."""
        trained = self.trained(stage)
        if not trained:
            raise InputError(
                f"parameters that ask for a gradient were needed in stage {stage}, got none; "
                "use model.requires_grad_(True)"
            )
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        return trained

    def ready(self, stage: str, *, frozen_norms: bool = False) -> None:
        """Training mode for what a stage trains; what it leaves as it is runs as it is evaluated."""
        self.train()
        cam = getattr(self.net, "cam", None)
        if stage == "cam":
            self.net.eval()
            cam.train()  # type: ignore[union-attr]
        elif stage == "tpsm" and cam is not None:
            cam.eval()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                constant = module.affine and not module.weight.requires_grad
                module.train(module.training and not (frozen_norms or constant))


def network(
    model: str | os.PathLike[str] | nn.Module,
    method: str,
    classes: Sequence[str] | int | None,
    settings: Settings,
    *,
    pretrained: bool = True,
) -> nn.Module:
    """The network to begin with; a module that is given is copied, not changed.

    Parameters
    ----------
    model
        A timm name, a timm model, or a trained network of this library (object, folder, "hf-hub:owner/name",
        "trt-lite0") to go on from, which must have the classes of the data.
    method
        "trt", "ts-cam" or "cam".
    classes
        Names of the data's classes, or how many there are; None keeps the model's own, and its classifier.
    pretrained
        Whether a timm name means its published weights, or new ones.

    Raises
    ------
    InputError
        The network is another method's or has other classes, or cannot take the size of input.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    net = resized(loaded(model, pretrained), settings.size)
    names = class_names(net) if classes is None else None if isinstance(classes, int) else tuple(classes)
    count = num_classes(net) if classes is None else classes if isinstance(classes, int) else len(classes)
    if isinstance(net, (TRTLocalizer, TSCAMNet)):
        check_fits(net, method, count, names)
    else:
        drop_paths(net, settings.drop_path)
        net = built(net, method, count, settings)
    net.classes = names  # type: ignore[assignment]
    if settings.size is not None:
        net.preprocessing = replace(preprocessing(net), size=(settings.size, settings.size))  # type: ignore[assignment]
    return net


def loaded(model: str | os.PathLike[str] | nn.Module, pretrained: bool) -> nn.Module:
    """A copy of the caller's module, or one of a name or folder."""
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    name = os.fspath(model)
    if not pretrained and not (Path(name).exists() or ":" in name or name == EMBEDDED):
        return create_timm(name, pretrained=False)
    return load_model(name)


def built(backbone: nn.Module, method: str, count: int, settings: Settings) -> nn.Module:
    """The network of a method around a backbone."""
    if method == "trt":
        return TRTLocalizer(backbone, count, u=settings.u)
    if method == "ts-cam":
        return TSCAMNet(backbone, count)
    set_classes(backbone, count)
    return backbone


def check_fits(net: TRTLocalizer | TSCAMNet, method: str, count: int, names: tuple[str, ...] | None) -> None:
    """Refuse a trained network that is another method's, or whose classes are not the data's."""
    own = "trt" if isinstance(net, TRTLocalizer) else "ts-cam"
    if own != method:
        raise InputError(f"a network of method {method!r} was needed, got one of {own!r}; give --method {own}")
    if net.num_classes != count:
        raise InputError(
            f"a network of the data's {count} classes was needed to go on from, got one of {net.num_classes}; "
            "begin from its timm backbone, or give the data it was trained on"
        )
    if names and net.classes and tuple(net.classes) != names:
        place = next(i for i, (ours, theirs) in enumerate(zip(names, net.classes, strict=True)) if ours != theirs)
        raise InputError(
            f"a network of the data's classes was needed to go on from, but its class {place} is "
            f"{net.classes[place]!r}, the data's {names[place]!r}; give the data it was trained on"
        )


def resized(net: nn.Module, size: int | None) -> nn.Module:
    """Let a network take square images of another size, its position embedding resampled."""
    backbone: Any = getattr(net, "backbone", net)
    embed = getattr(backbone, "patch_embed", None)
    made_for = getattr(embed, "img_size", None)
    if size is None or made_for in (None, (size, size)):
        return net
    if not hasattr(backbone, "set_input_size"):
        raise InputError(f"size must be {made_for[0]} for {type(backbone).__name__}, which takes no other, got {size}")
    backbone.set_input_size(img_size=(size, size))
    return net


def drop_paths(model: nn.Module, rate: float) -> None:
    """Drop whole residual branches in training, the more the deeper the block; not in models without blocks."""
    from timm.layers import DropPath

    blocks = describe(model).blocks
    for depth, block in enumerate(blocks):
        chance = rate * depth / max(len(blocks) - 1, 1)
        for name in ("drop_path", "drop_path1", "drop_path2"):
            if isinstance(getattr(block, name, None), (nn.Identity, DropPath)):
                setattr(block, name, DropPath(chance) if chance else nn.Identity())


def parameter_groups(
    net: nn.Module, trained: Mapping[str, nn.Parameter], weight_decay: float, layer_decay: float | None
) -> list[dict[str, Any]]:
    """What the optimizer is given: parameters by their decay, and by layer where the rate decays from one to the next.

    No decay on 1-D parameters, biases, and what the backbone says needs none, such as position embedding and class
    token. Layers are timm's of the backbone; all that is not its part learns at the full rate.
    """
    from timm.optim import param_groups_layer_decay

    backbone: Any = getattr(net, "backbone", net)
    inside = "backbone." if backbone is not net else ""
    spared = set(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else set()
    groups: list[dict[str, Any]] = []
    if layer_decay is not None and any(name.startswith(inside) for name in trained):
        groups = param_groups_layer_decay(backbone, weight_decay, spared, layer_decay=layer_decay)
        trained = {name: one for name, one in trained.items() if not name.startswith(inside)}
    for decays in (True, False):
        chosen = [
            one
            for name, one in trained.items()
            if decays == (one.ndim > 1 and not name.endswith(".bias") and name.removeprefix(inside) not in spared)
        ]
        if chosen:
            groups.append({"params": chosen, "weight_decay": weight_decay if decays else 0.0})
    return groups


def num_classes(net: nn.Module) -> int:
    """Classes K that a network answers for."""
    return int(getattr(net, "num_classes", 0) or 0) or count_classes(net)
