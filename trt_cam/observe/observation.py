"""What one forward of a model showed: explainers read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trt_cam.backbone import Backbone, class_evidence, unwrap
from trt_cam.errors import UnsupportedModelError
from trt_cam.observe.calls import AttentionCall, precisely
from trt_cam.observe.layers import Reshape, as_map, channel_axis
from trt_cam.observe.quiet import quiet_pass
from trt_cam.observe.replay import Tail, forward
from trt_cam.observe.rewriting import run_masked
from trt_cam.ops.attention import HeadFusion, fuse_heads
from trt_cam.ops.precision import at_least_float32

Scoring = Callable[[Tensor], Tensor]
Target = Tensor | Scoring | Sequence[Scoring]
"""Classes (B,), a callable from one image's logits (K,) to a scalar, or one callable per image."""


@dataclass
class Observation:
    """What one forward showed. Explainers read it; it lives as long as they need it.

    Attributes
    ----------
    backbone, images : the model's description and its input (B, 3, H, W)
    logits : (B, K), as the model returned them
    grid_size : (Gh, Gw)
    rows : one (B, nh, S) per block: the attention row that stands for the classifier's view. For a model with an
        attention pool, always, the single row of the pool. With "rows".
    calls : one ``AttentionCall`` per block, q and k kept. With "attention"; the last one alone with "keys".
    last_input : args and kwargs of the last block: Z_{L-1} first. With "tokens".
    features : (B, D, Gh, Gw), what the classifier reads before pooling. With "features".
    middle : outputs of the backbone's middle layers, each (B, D, h, w). With "middle".
    output : what the model returned, where it returns more than logits.
    layout : of what ``forward_features`` of a spatial model returned: "NCHW", "NHWC" or "NLC".
    head : a convolutional classifier over the features, in place of the model's own; None for most models.
    net : what is run for more forwards: the model, or a classifier around it.
    layers, layer : names of the layers under explanation, and the one that methods read now.
    taps : outputs of these layers, in their own layout. With "activation" or "gradient".
    tails : what follows these layers in the model. With "replay".
    """

    backbone: Backbone
    images: Tensor
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    grid_size: tuple[int, int] = (0, 0)
    rows: list[Tensor] = field(default_factory=list)
    calls: list[AttentionCall] = field(default_factory=list)
    last_input: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    features: Tensor | None = None
    middle: list[Tensor] = field(default_factory=list)
    output: Any = None
    layout: str = "NCHW"
    head: Any = None
    net: Any = None
    layers: tuple[str, ...] = ()
    layer: str = ""
    taps: dict[str, Tensor] = field(default_factory=dict)
    reshape: Reshape | None = None
    tails: dict[str, Tail] = field(default_factory=dict, repr=False)
    repeat: Callable[[Tensor], Observation] | None = field(default=None, repr=False)

    def again(self, images: Tensor) -> Observation:
        """The same observed of other images (B', 3, H, W); another forward."""
        assert self.repeat is not None
        seen = self.repeat(images)
        seen.layer = self.layer
        return seen

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K) of other images (n, 3, H, W), as many at a time as a fixed budget of memory allows."""
        return forward(self.backbone.model if self.net is None else self.net, images)

    def replay(self, raw: Tensor, image: int) -> Tensor:
        """Logits (n, K) of one image with other outputs (n, ...) of the layer under explanation. With "replay"."""
        return self.tails[self.layer].run(raw, self.images, image)

    @property
    def channel_axis(self) -> int:
        """Which axis of ``raw`` the channels are."""
        return channel_axis(self.raw, self.backbone, (self.images.shape[-2], self.images.shape[-1]))

    def query(self) -> Tensor:
        """(B, S): where a sweep starts. One at the class token, 1/N over the patches, or the pool's row."""
        B, S = self.images.shape[0], self.calls[-1].shape[3]
        prefix, pooling = self.backbone.prefix, self.backbone.pooling
        start = at_least_float32(self.images.new_zeros(B, S))
        if pooling == "map":
            row = fuse_heads(self.rows[-1])
            start[:, S - row.shape[1] :] = row
        elif pooling == "token":
            start[:, 0] = 1
        else:
            start[:, prefix:] = 1 / (S - prefix)
        return start

    def pull(self, row: Tensor, block: int, *, head_fusion: HeadFusion = "mean") -> Tensor:
        """``row`` times the attention matrix of a block, (B, S); the matrix is made a few rows at a time.

        The rows of heads fused by "max" or "min" are divided by their sum.
        """
        call = self.calls[block]
        if head_fusion == "mean":
            return call.weighed(row).mean(dim=1)
        return self.pull_fused(row, block, lambda start, stop: shares(fuse_heads(call.rows(start, stop), head_fusion)))

    def pull_fused(self, row: Tensor, block: int, fused: Callable[[int, int], Tensor]) -> Tensor:
        """``row`` (B, Nq) times a matrix, (B, S), whose rows ``fused(start, stop)`` (B, rows, S) are made in turn."""
        out = torch.zeros_like(row)
        for start, stop in self.calls[block].chunks():
            if row[:, start:stop].any():
                rows = fused(start, stop).to(row)
                with precisely(row):
                    out = out + (row[:, None, start:stop] @ rows)[:, 0]
        return out

    def attention_gradients(self, target: Target, start_block: int = 0) -> list[Tensor]:
        """Derivative of the target by what each block's call from ``start_block`` on is differentiated by.

        ``calls[block].gradient_rows`` makes that by attention of it. With "attention gradient".
        """
        by = [call.differentiable() for call in self.calls[start_block:]]
        with torch.inference_mode(False), torch.enable_grad():
            score = target_scores(self.logits, target).sum()
            if not score.requires_grad:
                raise UnsupportedModelError(
                    "a target that depends on attention was needed, but its gradient does not reach it; choose a "
                    "target that uses the model's output"
                )
            found = torch.autograd.grad(score, by, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(by, found, strict=True)
        ]

    def to_grid(self, row: Tensor) -> Tensor:
        """(B, S) or (B, N) -> (B, Gh, Gw): the patch tokens, which come last."""
        Gh, Gw = self.grid_size
        return row[:, row.shape[1] - Gh * Gw :].reshape(row.shape[0], Gh, Gw)

    @property
    def raw(self) -> Tensor:
        """Output of the layer under explanation as it is, detached: (B, S, D), (B, D, h, w) or (B, h, w, D)."""
        return self.taps[self.layer].detach()

    def activation(self) -> Tensor:
        """Output of the layer under explanation, detached: (B, D, h, w), at least float32. With "activation"."""
        return self.spatial(self.raw)

    def gradient(self, target: Target) -> tuple[Tensor, Tensor]:
        """Activation of the layer under explanation and the derivative of the target with respect to it.

        Parameters
        ----------
        target : (B,) classes, or a callable from one image's logits (K,) to a scalar, or one callable per image

        Returns
        -------
        (B, D, h, w) twice
            Activation and gradient, detached, at least float32. The graph is kept: more targets may follow.
        """
        tap, gradient = self.taps[self.layer], None
        with torch.inference_mode(False), torch.enable_grad():
            score = target_scores(self.logits, target).sum()
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(score, tap, retain_graph=True, allow_unused=True)
        named = f"layer {self.layer!r} of {type(self.backbone.model).__name__}"
        if gradient is None:
            raise UnsupportedModelError(
                f"a target that depends on {named} was needed, but its gradient does not reach it; choose a target "
                f"that uses the model's output, and a layer before it such as target_layers=[{self.backbone.layer!r}]"
            )
        over_patches = self.spatial(gradient)
        if gradient.any() and not over_patches.any():
            raise UnsupportedModelError(
                f"a gradient on patches was needed, but that of {named} is exactly zero: after it the classifier reads "
                f"other tokens only; use target_layers=[{self.backbone.layer!r}]"
            )
        return self.activation(), over_patches

    def spatial(self, activation: Tensor, name: str | None = None) -> Tensor:
        """Tokens (B, S, D), or a map in either layout, of a layer as (B, D, h, w), at least float32."""
        reshape = self.reshape if name is None else None
        image = (self.images.shape[-2], self.images.shape[-1])
        return as_map(activation, self.backbone, self.grid_size, image, name or self.layer, reshape)

    def class_map(self, features: Tensor, target: Tensor) -> Tensor:
        """Evidence for the target at each position of features (B, D, Gh, Gw): (B, Gh, Gw), at least float32."""
        with quiet_pass(self.backbone.model, self.images), precisely(features):
            if self.head is not None:
                return self.head.maps(features, target[:, None])[:, 0]
            return at_least_float32(class_evidence(self.backbone, features, target, self.layout))

    def normed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S, D) after the model's last norm, the patches as (B, D, Gh, Gw)."""
        final = self.backbone.final
        with quiet_pass(self.backbone.model, self.images):
            return self.spatial(unwrap(self.backbone.model.get_submodule(final))(tokens), final)

    def replay_masked(self, keep: Tensor) -> Tensor:
        """The last block once more on the same tokens, dropped patches hidden (Eq. 6 to 8): (B, S, D)."""
        assert self.last_input is not None
        args, kwargs = self.last_input
        backbone = self.backbone
        with quiet_pass(backbone.model, self.images):
            return run_masked(
                backbone.blocks[-1], backbone.attentions[-1], keep, *args, prefix=backbone.prefix, **kwargs
            )


def of_image(target: Target, image: int, count: int) -> Target:
    """The target of one image of a batch, for ``count`` variants of it."""
    if isinstance(target, Tensor):
        return target[image].expand(count)
    return target if callable(target) else target[image]


def shares(rows: Tensor) -> Tensor:
    """Rows (..., S) divided by their sum; zeros stay zeros."""
    total = rows.sum(dim=-1, keepdim=True)
    return rows / total.masked_fill(total == 0, 1.0)


def target_scores(logits: Tensor, target: Target) -> Tensor:
    """What is explained of logits (B, K): the logit of the target, or what its callable says of an image's logits.

    (B,), at least float32: methods add scores up.
    """
    if isinstance(target, Tensor):
        return at_least_float32(logits.gather(1, target[:, None].clone())[:, 0])
    scorings = [target] * len(logits) if callable(target) else target
    return at_least_float32(torch.stack([scoring(one) for scoring, one in zip(scorings, logits, strict=True)]))
