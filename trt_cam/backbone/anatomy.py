"""The parts of a model, and its classifier applied to single positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trt_cam.errors import UnsupportedModelError

Pooling = Literal["token", "avg", "map", "none"]

ROWS: dict[Pooling, str] = {
    "token": "class token",
    "avg": "mean over patch tokens",
    "map": "latent query of the attention pool",
    "none": "mean over patch tokens",
}


@dataclass(frozen=True)
class Backbone:
    """The parts of one model that explainers need.

    Attributes
    ----------
    model : the model itself, without wrappers (DataParallel, ``torch.compile``)
    family : name of the entry that recognised it
    blocks : the transformer's blocks
    attentions : the modules in whose forward the attention happens that is read, in order; most often one per block
    pool : the attention pool of a "map" model, else None
    prefix : number P of tokens before the patch tokens (class, distillation, registers)
    pooling : what the classifier reads: "token", "avg", "map", or "none" where there is no classifier to tell
    layer : dotted name of the layer whose activation gradient methods differentiate
    final : dotted name of the layer whose output the classifier reads before pooling, the last norm
    middle : dotted names of the middle layers whose tokens say which places belong together
    gives : what can be observed, in the words of ``Explainer.requires``
    channels_last : whether the spatial features are (B, h, w, D)
    """

    model: nn.Module
    family: str
    blocks: tuple[nn.Module, ...] = ()
    attentions: tuple[nn.Module, ...] = ()
    pool: nn.Module | None = None
    prefix: int = 0
    pooling: Pooling = "avg"
    layer: str = ""
    final: str = ""
    middle: tuple[str, ...] = ()
    gives: frozenset[str] = frozenset()
    channels_last: bool = False
    grid_of: Callable[[int, int], tuple[int, int]] | None = field(default=None, repr=False)

    @property
    def row(self) -> str:
        """In words, the attention row that stands for the classifier's view."""
        return ROWS[self.pooling]

    @property
    def num_classes(self) -> int:
        """Number K of classes; 0 for a headless model."""
        return count_classes(self.model)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (Gh, Gw) of an input of ``height`` by ``width`` pixels; an error if the model cannot take it."""
        if self.grid_of is None:
            raise UnsupportedModelError(
                f"a patch grid needs a transformer over patches, but {type(self.model).__name__} has none"
            )
        return self.grid_of(height, width)


def unwrap(model: Any) -> Any:
    """The model inside DataParallel, DistributedDataParallel and ``torch.compile`` wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def count_classes(model: nn.Module) -> int:
    """Number of classes of a model's classifier; 0 without one."""
    heads = classifiers(model)
    if heads:
        return int(heads[0].out_features)
    return int(getattr(model, "num_classes", 0) or 0)


def classifiers(model: Any) -> tuple[nn.Linear, ...]:
    """The linear classifier of a model; both of them for a distilled one (their mean is the model's answer)."""
    if hasattr(model, "heads") and hasattr(model.heads, "head"):
        found: Any = model.heads.head  # torchvision
    elif hasattr(model, "get_classifier"):
        found = model.get_classifier()
    elif hasattr(model, "base_model_prefix"):  # transformers
        found = getattr(model, "classifier", None) or [
            getattr(model, name, None) for name in ("cls_classifier", "distillation_classifier")
        ]
    else:
        found = None
    heads = found if isinstance(found, (tuple, list)) else (found,)
    return tuple(head for head in heads if isinstance(head, nn.Linear))


def class_evidence(backbone: Backbone, features: Tensor, target: Tensor, layout: str = "NCHW") -> Tensor:
    """The classifier applied to every position instead of to the pooled vector.

    Parameters
    ----------
    backbone
        A transformer whose classifier is linear, or a model with a spatial map, whose whole head is applied.
    features : (B, D, Gh, Gw)
        Features of the kind that the classifier reads (after the model's last norm).
    target : (B,)
        Class whose evidence is asked for.
    layout
        Of what ``forward_head`` takes: "NCHW", "NHWC" or "NLC".

    Returns
    -------
    (B, Gh, Gw)
        Logit of ``target`` at each position, bias included.
    """
    if backbone.family in ("spatial", "encoder"):
        return head_evidence(backbone, features, target, "NLC" if backbone.family == "encoder" else layout)
    heads = classifiers(backbone.model)
    if not heads:
        raise UnsupportedModelError(
            f"class evidence needs a linear classifier, but {type(backbone.model).__name__} has none; "
            "methods that do without: raw-attention, rollout"
        )
    features = pooled_alone(backbone, features)
    weight = torch.stack([head.weight[target] for head in heads]).mean(0)  # (B, D)
    grid = torch.einsum("bdhw,bd->bhw", features, weight.to(features.dtype))
    biases = [head.bias[target] for head in heads if head.bias is not None]
    return grid + torch.stack(biases).mean(0)[:, None, None] if biases else grid


def head_evidence(backbone: Backbone, features: Tensor, target: Tensor, layout: str) -> Tensor:
    """What the head of a spatial model answers if each position were the only one, (B, Gh, Gw)."""
    model: Any = backbone.model
    weights = next(model.parameters())
    B, D, Gh, Gw = features.shape
    alone = features.movedim(1, -1).reshape(-1, D).to(weights.dtype)  # (B N, D)
    if layout == "NLC":
        empty = alone.new_zeros(len(alone), backbone.prefix, D)  # what an average over patches leaves out
        shaped = torch.cat([empty, alone[:, None]], dim=1)
    else:
        shaped = alone[:, None, None] if layout == "NHWC" else alone[:, :, None, None]
    logits = model.forward_head(shaped)
    return logits.view(B, Gh * Gw, -1).gather(2, target[:, None, None].expand(-1, Gh * Gw, 1)).view(B, Gh, Gw)  # type: ignore[no-any-return]


def pooled_alone(backbone: Backbone, features: Tensor) -> Tensor:
    """What the classifier would read if each position were the only one: pool and norm of the head, (B, D, Gh, Gw)."""
    tokens = features.movedim(1, -1).to(classifiers(backbone.model)[0].weight.dtype)  # (B, Gh, Gw, D)
    if backbone.pool is not None:
        tokens = backbone.pool(tokens.flatten(0, 2)[:, None]).view_as(tokens)
    norm: Any = getattr(backbone.model, "fc_norm", None)
    return (norm(tokens) if isinstance(norm, nn.Module) else tokens).movedim(-1, 1).to(features.dtype)
