"""One forward of a model, and what it showed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, class_evidence, unwrap
from trt_cam.errors import UnsupportedModelError
from trt_cam.observe.calls import (
    AttentionCall,
    Handler,
    check_calls,
    hooked,
    intercept,
    precisely,
    query_rows,
    wide,
)
from trt_cam.observe.quiet import check_images, quiet_pass
from trt_cam.observe.rewriting import run_masked
from trt_cam.observe.scope import Active, watched
from trt_cam.ops.attention import HeadFusion, fuse_heads


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
    calls : one ``AttentionCall`` per block, q and k kept. With "attention".
    last_input : args and kwargs of the last block: Z_{L-1} first. With "tokens".
    features : (B, D, Gh, Gw), what the classifier reads before pooling. With "features".
    middle : outputs of the backbone's middle layers, each (B, D, h, w). With "middle".
    output : what the model returned, where it returns more than logits.
    head : a convolutional classifier over the features, in place of the model's own; None for most models.
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
    head: Any = None
    leaf: Tensor | None = None

    def query(self) -> Tensor:
        """(B, S): where a sweep starts. One at the class token, 1/N over the patches, or the pool's row."""
        B, S = self.images.shape[0], self.calls[-1].shape[3]
        prefix, pooling = self.backbone.prefix, self.backbone.pooling
        start = wide(self.images.new_zeros(B, S))
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
        out = torch.zeros_like(row)
        for start, stop in call.chunks():
            fused = fuse_heads(call.rows(start, stop), head_fusion).to(row)  # (B, rows, S)
            with precisely(row):
                out = out + torch.einsum("bq,bqk->bk", row[:, start:stop] / fused.sum(dim=-1), fused)
        return out

    def to_grid(self, row: Tensor) -> Tensor:
        """(B, S) or (B, N) -> (B, Gh, Gw): the patch tokens, which come last."""
        Gh, Gw = self.grid_size
        return row[:, row.shape[1] - Gh * Gw :].reshape(row.shape[0], Gh, Gw)

    def gradient(self, target: Tensor | Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Activation of the gradient layer and the derivative of the target with respect to it.

        Parameters
        ----------
        target : (B,) classes, or a callable from one image's logits (K,) to a scalar

        Returns
        -------
        (B, D, Gh, Gw) twice
            Activation and gradient, detached, at least float32.
        """
        assert self.leaf is not None
        gradient = None
        with torch.inference_mode(False), torch.enable_grad():
            if isinstance(target, Tensor):
                score = self.logits.gather(1, target[:, None].clone()).sum()
            else:
                score = torch.stack([target(logits) for logits in self.logits]).sum()
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(score, self.leaf, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError(
                f"a target that depends on layer {self.backbone.layer!r} of {type(self.backbone.model).__name__} was "
                "needed, but its gradient does not reach it; choose a target that uses the model's output"
            )
        return self.spatial(self.leaf.detach()), self.spatial(gradient)

    def spatial(self, activation: Tensor) -> Tensor:
        """Tokens (B, S, D), or a map in either layout, as (B, D, Gh, Gw), at least float32."""
        if activation.ndim == 3:
            Gh, Gw = self.grid_size
            patches = activation[:, activation.shape[1] - Gh * Gw :]  # (B, N, D)
            return wide(patches.transpose(1, 2).unflatten(2, (Gh, Gw)))
        if self.backbone.channels_last:
            activation = activation.movedim(-1, 1)
        return wide(activation)

    def add_middle(self, output: Tensor) -> None:
        """Keep the output of a middle layer."""
        self.middle.append(self.spatial(output.detach()))

    def class_map(self, features: Tensor, target: Tensor) -> Tensor:
        """Evidence for the target at each position of features (B, D, Gh, Gw): (B, Gh, Gw)."""
        if self.head is not None:
            return self.head.maps(features, target[:, None])[:, 0]
        with quiet_pass(self.backbone.model, self.images):
            return class_evidence(self.backbone, features, target)

    def normed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, S, D) after the model's last norm, the patches as (B, D, Gh, Gw)."""
        with quiet_pass(self.backbone.model, self.images):
            return self.spatial(features_layer(self.backbone)(tokens))

    def replay_masked(self, keep: Tensor) -> Tensor:
        """The last block once more on the same tokens, dropped patches hidden (Eq. 6 to 8): (B, S, D)."""
        assert self.last_input is not None
        args, kwargs = self.last_input
        backbone = self.backbone
        with quiet_pass(backbone.model, self.images):
            return run_masked(
                backbone.blocks[-1], backbone.attentions[-1], keep, *args, prefix=backbone.prefix, **kwargs
            )


def features_layer(backbone: Backbone) -> nn.Module:
    """The model's last norm: its output is what the classifier reads before pooling."""
    return unwrap(backbone.model.get_submodule("encoder.ln" if backbone.family == "torchvision-vit" else "norm"))


def observe(
    backbone: Backbone, images: Tensor, needs: frozenset[str], *, via: nn.Module | None = None, **via_args: Any
) -> Observation:
    """Run the model once and record what ``needs`` names.

    Parameters
    ----------
    backbone
        From ``describe``.
    images : (B, 3, H, W)
        Preprocessed, on the model's device.
    needs
        Any of "rows", "attention", "tokens", "features", "middle", "gradient"; the model must give them.
    via
        A module around the backbone to run in its place, as ``via(images, **via_args)``.

    Raises
    ------
    UnsupportedModelError
        The model does not give what is needed, or an attention module did something else than its family does.
    """
    check_images(images)
    seen = Observation(backbone, images)
    with quiet_pass(via or backbone.model, images) as images, watched(backbone.model) as active, ExitStack() as stack:
        for name in backbone.middle if "middle" in needs else ():
            stack.enter_context(hooked(unwrap(backbone.model.get_submodule(name)), active, on_output=seen.add_middle))
        if backbone.family == "spatial":
            _observe_spatial(seen, images, needs)
        else:
            _observe_tokens(seen, images, needs, active, via or backbone.model, via_args)
    return seen


def _observe_spatial(seen: Observation, images: Tensor, needs: frozenset[str]) -> None:
    model: Any = seen.backbone.model
    features = model.forward_features(images)
    width = model.num_features
    if not isinstance(features, Tensor) or features.ndim != 4 or width not in (features.shape[1], features.shape[3]):
        raise UnsupportedModelError(
            f"a feature map (B, {width}, h, w) was needed from {type(model).__name__}.forward_features, got "
            f"{tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__}; "
            "use a timm CNN, or a transformer with global attention"
        )
    if "gradient" in needs:
        seen.leaf = features = features.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until quiet_pass ends
    seen.logits = model.forward_head(features)
    seen.features = seen.spatial(features.detach())
    seen.grid_size = (seen.features.shape[-2], seen.features.shape[-1])


def _observe_tokens(
    seen: Observation, images: Tensor, needs: frozenset[str], active: Active, run: nn.Module, run_args: dict[str, Any]
) -> None:
    backbone = seen.backbone
    seen.grid_size = backbone.grid_size(*images.shape[-2:])
    recorder = _Recorder(seen, needs)
    with ExitStack() as stack:
        if needs & {"rows", "attention"}:
            stack.enter_context(intercept(recorder.handlers(), active))
        if "tokens" in needs:
            stack.enter_context(hooked(backbone.blocks[-1], active, on_input=recorder.last_input))
        if "features" in needs:
            stack.enter_context(hooked(features_layer(backbone), active, on_output=recorder.features))
        if "gradient" in needs:
            layer = unwrap(backbone.model.get_submodule(backbone.layer))
            stack.enter_context(hooked(layer, active, on_output=recorder.leaf))
        seen.output = run(images, **run_args)
    seen.logits = seen.output if isinstance(seen.output, Tensor) else seen.output.logits
    check_calls(backbone, recorder.made, backbone.prefix + seen.grid_size[0] * seen.grid_size[1])


class _Recorder:
    """Fills an ``Observation`` during the forward, and notes the shape of every attention call."""

    def __init__(self, seen: Observation, needs: frozenset[str]) -> None:
        self.seen, self.needs = seen, needs
        self.made: dict[nn.Module, list[tuple[int, ...]]] = {}

    def handlers(self) -> dict[nn.Module, Handler]:
        backbone = self.seen.backbone
        modules = [*backbone.attentions, *([backbone.pool] if backbone.pool is not None else [])]
        return {module: self._handler(module) for module in modules}

    def _handler(self, module: nn.Module) -> Handler:
        made = self.made.setdefault(module, [])
        backbone = self.seen.backbone

        def record(call: AttentionCall) -> None:
            made.append(call.shape)
            if module is backbone.pool or (backbone.pool is None and "rows" in self.needs):
                self.seen.rows.append(query_rows(call, backbone).detach())
            if module is not backbone.pool and "attention" in self.needs:
                self.seen.calls.append(call.detached())

        return record

    def last_input(self, args: Any, kwargs: Any) -> None:
        self.seen.last_input = (args, kwargs)

    def features(self, output: Tensor) -> None:
        self.seen.features = self.seen.spatial(output.detach())

    def leaf(self, output: Tensor) -> Tensor:
        self.seen.leaf = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # the rest of this forward is differentiable; quiet_pass ends it
        return self.seen.leaf
