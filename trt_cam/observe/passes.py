"""One forward of a model, watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, unwrap
from trt_cam.errors import InputError, TrtCamError, UnsupportedModelError
from trt_cam.observe.calls import AttentionCall, check_calls, query_rows
from trt_cam.observe.layers import Layer, Reshape, channel_axis, first_tensor, resolve_layers
from trt_cam.observe.observation import Observation
from trt_cam.observe.quiet import check_images, check_placed, quiet_pass
from trt_cam.observe.replay import Tail, logits_of
from trt_cam.observe.scope import Active, watched
from trt_cam.observe.watch import Handler, hooked, intercept


def observe(
    backbone: Backbone,
    images: Tensor,
    needs: frozenset[str],
    *,
    target_layers: Layer | Sequence[Layer] | None = None,
    reshape: Reshape | None = None,
    start_block: int = 0,
    via: nn.Module | None = None,
    **via_args: Any,
) -> Observation:
    """Run the model once and record what ``needs`` names.

    Parameters
    ----------
    backbone
        From ``describe``.
    images : (B, 3, H, W)
        Preprocessed, on the model's device.
    needs
        Any of "rows", "attention", "keys", "attention gradient", "tokens", "features", "middle", "activation",
        "gradient"; the model must give them.
    target_layers, reshape
        Layers for "activation" and "gradient", the model's default for None, and how to make maps of their outputs.
    start_block
        First block whose attention is differentiated, for "attention gradient".
    via
        A module around the backbone to run in its place, as ``via(images, **via_args)``.

    Raises
    ------
    UnsupportedModelError
        The model does not give what is needed, or an attention module did something else than its family does.
    """
    check_images(images)
    check_placed(backbone.model, images)
    layers = resolve_layers(backbone, target_layers) if needs & {"activation", "gradient"} else ()
    seen = Observation(backbone, images, layers=layers, layer=layers[0] if layers else "", reshape=reshape)
    seen.repeat = partial(observe, backbone, needs=needs, target_layers=target_layers, reshape=reshape)
    recorder = _Recorder(seen, needs)
    with quiet_pass(via or backbone.model, images) as images, watched(backbone.model) as active, ExitStack() as stack:
        for name in backbone.middle if "middle" in needs else ():
            stack.enter_context(hooked(_layer(backbone, name), active, on_output=partial(recorder.middle, name)))
        for name in layers:
            if name != FORWARD_FEATURES:
                stack.enter_context(hooked(_layer(backbone, name), active, on_output=partial(recorder.tap, name)))
        for name in layers if "replay" in needs else ():
            seen.tails[name] = Tail(backbone, name)
            seen.tails[name].record(stack, active)
        stack.enter_context(_taken(backbone.model, images))
        if backbone.family == "spatial":
            _observe_spatial(seen, images, recorder)
        else:
            if "attention gradient" in needs and start_block < len(backbone.blocks):
                stack.enter_context(hooked(backbone.blocks[start_block], active, on_input=recorder.open_graph))
            _observe_tokens(seen, images, recorder, active, via or backbone.model, via_args)
    for name in layers:
        if name not in seen.taps:
            raise InputError(
                f"target_layers needs layers that the forward runs, but {name!r} was not run; "
                f"leave it out for {backbone.layer!r}"
            )
    return seen


FORWARD_FEATURES = "forward_features"
"""Name of the layer that is no module: what ``forward_features`` returns."""


CALLS = frozenset({"rows", "attention", "keys", "attention gradient"})
"""What is read of attention calls."""


def _layer(backbone: Backbone, name: str) -> nn.Module:
    return unwrap(backbone.model.get_submodule(name))  # type: ignore[no-any-return]


@contextmanager
def _taken(model: Any, images: Tensor) -> Iterator[None]:
    """Say which size a model takes, where its forward fails on images of another size than it was made for."""
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    made_for = made_for or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (0, 0))[-2:]
    try:
        yield
    except (AssertionError, IndexError, RuntimeError, ValueError) as problem:
        given, said = (images.shape[-2], images.shape[-1]), " ".join(str(problem).split())
        known = isinstance(made_for, (tuple, list)) and tuple(made_for) not in ((0, 0), given)
        if not known or isinstance(problem, (TrtCamError, torch.cuda.OutOfMemoryError)):
            raise
        raise InputError(
            f"images of a size that {type(model).__name__} takes, as {made_for[0]} x {made_for[1]} pixels, were "
            f"needed, got {given[0]} x {given[1]} ({said or type(problem).__name__}); resize them"
        ) from problem


def _observe_spatial(seen: Observation, images: Tensor, recorder: _Recorder) -> None:
    model: Any = seen.backbone.model
    features = model.forward_features(images)
    width, backbone = model.num_features, seen.backbone
    is_map = isinstance(features, Tensor) and features.ndim == 4 and width in (features.shape[1], features.shape[3])
    if isinstance(features, Tensor) and features.ndim == 3 and backbone.grid_of is not None:
        seen.grid_size, seen.layout = backbone.grid_size(*images.shape[-2:]), "NLC"
        is_map = features.shape[1] == backbone.prefix + seen.grid_size[0] * seen.grid_size[1]
    elif is_map and channel_axis(features, backbone, (images.shape[-2], images.shape[-1])) == 3:
        seen.layout = "NHWC"
    if not is_map:
        raise UnsupportedModelError(
            f"a feature map (B, {width}, h, w) was needed from {type(model).__name__}.forward_features, got "
            f"{tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__}; "
            "use a timm CNN, or a transformer with global attention"
        )
    if FORWARD_FEATURES in seen.layers:
        tapped = recorder.tap(FORWARD_FEATURES, features)
        features = features if tapped is None else tapped
    seen.logits = model.forward_head(features)
    seen.features = seen.spatial(features.detach(), FORWARD_FEATURES)
    seen.grid_size = (seen.features.shape[-2], seen.features.shape[-1])


def _observe_tokens(
    seen: Observation,
    images: Tensor,
    recorder: _Recorder,
    active: Active,
    run: Callable[..., Any],
    run_args: dict[str, Any],
) -> None:
    backbone, needs = seen.backbone, recorder.needs
    seen.grid_size = backbone.grid_size(*images.shape[-2:])
    with ExitStack() as stack:
        if needs & CALLS:
            explains = bool(needs & {"gradient", "attention gradient"})
            stack.enter_context(intercept(recorder.handlers(), active, frozen=explains))
        if "tokens" in needs:
            stack.enter_context(hooked(backbone.blocks[-1], active, on_input=recorder.last_input))
        if "features" in needs:
            stack.enter_context(hooked(_layer(backbone, backbone.final), active, on_output=recorder.features))
        seen.output = run(images, **run_args)
    seen.logits = logits_of(seen.output)
    check_calls(backbone, recorder.made, backbone.prefix + seen.grid_size[0] * seen.grid_size[1])


class _Recorder:
    """Fills an ``Observation`` during the forward, and notes the shape of every attention call."""

    def __init__(self, seen: Observation, needs: frozenset[str]) -> None:
        self.seen, self.needs = seen, needs
        self.made: dict[nn.Module, list[tuple[int, ...]]] = {}

    def handlers(self) -> dict[nn.Module, Handler]:
        backbone = self.seen.backbone
        watched = backbone.attentions if self.needs & (CALLS - {"keys"}) else backbone.attentions[-1:]
        modules = [*watched, *([backbone.pool] if backbone.pool is not None else [])]
        return {module: self._handler(module) for module in modules}

    def _handler(self, module: nn.Module) -> Handler:
        made = self.made.setdefault(module, [])
        backbone = self.seen.backbone

        def record(call: AttentionCall) -> None:
            made.append(call.shape)
            if module is backbone.pool or (backbone.pool is None and "rows" in self.needs):
                self.seen.rows.append(query_rows(call, backbone).detach())
            if module is backbone.pool:
                return
            if "attention gradient" in self.needs:
                self.seen.calls.append(call)
            elif "attention" in self.needs or self.last(module):
                self.seen.calls.append(call.detached())

        return record

    def last_input(self, args: Any, kwargs: Any) -> None:
        self.seen.last_input = (args, kwargs)

    def open_graph(self, args: Any, kwargs: Any) -> Any:
        """What follows this block's input is differentiable; quiet_pass ends it."""
        torch.set_grad_enabled(True)
        return (args[0].detach().requires_grad_(), *args[1:]), kwargs

    def last(self, module: nn.Module) -> bool:
        return "keys" in self.needs and module is self.seen.backbone.attentions[-1]

    def features(self, output: Tensor) -> None:
        self.seen.features = self.seen.spatial(output.detach(), self.seen.backbone.final)

    def middle(self, name: str, output: Any) -> None:
        self.seen.middle.append(self.seen.spatial(first_tensor(output).detach(), name))

    def tap(self, name: str, output: Any) -> Any:
        """Keep the output of a layer under explanation; for "gradient" the graph begins at the first of them."""
        tapped = first_tensor(output)
        if name in self.seen.taps or not isinstance(tapped, Tensor):
            what = "is run more than once in a forward" if name in self.seen.taps else "gives no tensor"
            raise UnsupportedModelError(
                f"a layer that is run once and gives a tensor was needed, but {name!r} {what}; "
                f"use target_layers=[{self.seen.backbone.layer!r}]"
            )
        own = name == self.seen.backbone.layer  # another layer's output may be changed in place by what follows
        if "gradient" not in self.needs:
            self.seen.taps[name] = tapped.detach() if own else tapped.detach().clone()
            return None
        torch.set_grad_enabled(True)  # the rest of this forward is differentiable; quiet_pass ends it
        tapped = tapped if tapped.requires_grad else tapped.detach().requires_grad_()
        self.seen.taps[name] = tapped
        onward = tapped if own else tapped.clone()
        return (onward, *output[1:]) if isinstance(output, tuple) else onward
