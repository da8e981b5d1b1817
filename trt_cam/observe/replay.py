"""More forwards: of other images, or of the part of a model after one layer. Bounded in memory, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, unwrap
from trt_cam.observe.layers import first_tensor
from trt_cam.observe.quiet import quiet_pass
from trt_cam.observe.scope import Active, watched
from trt_cam.observe.watch import hooked

Part = TypeVar("Part")

BUDGET = 2**28
"""Bytes of activations that more forwards may hold at a time, as ``image_bytes`` estimates them."""

TAILED = frozenset({"vit", "eva", "beit"})
"""Families whose forward after a block is: the other blocks, ``norm``, ``forward_head``."""


def image_bytes(images: Tensor) -> int:
    """Bytes that one image's forward holds, by 48 numbers for each pixel: a ViT-L/16, or a ResNet's first stage."""
    return 48 * images.shape[-2] * images.shape[-1] * images.element_size()


def chunks(count: int, each: int) -> Iterator[slice]:
    """Slices of ``count`` items that need ``each`` bytes and stay in the budget together; at least one item."""
    step = max(1, BUDGET // max(1, each))
    return (slice(start, min(count, start + step)) for start in range(0, count, step))


def halving(run: Callable[[int, int], Part], count: int) -> list[Part]:
    """What ``run(start, stop)`` makes of all items, in halves of them where a GPU's memory does not suffice."""
    parts: list[Part] = []
    pending = [(0, count)] if count else []
    while pending:
        start, stop = pending.pop()
        try:
            parts.append(run(start, stop))
            continue
        except torch.cuda.OutOfMemoryError:
            if stop - start == 1:
                raise
        torch.cuda.empty_cache()
        middle = (start + stop) // 2
        pending += [(middle, stop), (start, middle)]
    return parts


def forward(net: nn.Module, images: Tensor) -> Tensor:
    """Logits (n, K) of images (n, 3, H, W), quietly; as many at a time as the budget allows."""
    with quiet_pass(net, images) as images:

        def run(start: int, stop: int) -> Tensor:
            return logits_of(net(images[start:stop]))

        return torch.cat([_part(run, part) for part in chunks(len(images), image_bytes(images))])


def _part(run: Callable[[int, int], Tensor], part: slice) -> Tensor:
    return torch.cat(halving(lambda start, stop: run(part.start + start, part.start + stop), part.stop - part.start))


class Tail:
    """What follows one layer in a model: run with another output of that layer.

    For the families of ``TAILED`` and a layer that is a block or a block's ``norm1`` only the rest of the model is run;
    for the output of ``forward_features``, ``forward_head``; else the whole model, the layer's output replaced.
    """

    def __init__(self, backbone: Backbone, layer: str) -> None:
        self.backbone, self.layer = backbone, layer
        self.inputs: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        parts = layer.split(".")
        tailed = backbone.family in TAILED and parts[0] == "blocks" and parts[2:] in ([], ["norm1"])
        self.block = int(parts[1]) if tailed else None
        self.inside = len(parts) == 3

    def record(self, stack: ExitStack, active: Active) -> None:
        """Note what the blocks that are run again are given, during the watched forward."""
        for index, block in enumerate(self.backbone.blocks):
            if self.block is not None and index >= self.block:
                stack.enter_context(hooked(block, active, on_input=lambda *given, i=index: self.note(i, given)))

    def note(self, index: int, given: Any) -> None:
        self.inputs[index] = given

    def run(self, raw: Tensor, images: Tensor, image: int) -> Tensor:
        """Logits (n, K) of image ``image`` with ``raw`` (n, ...) as the layer's output, in the budget."""
        each = max(raw[0].numel() * raw.element_size() * 16, 1) if self.alone else image_bytes(images)
        with quiet_pass(self.backbone.model, images) as images:

            def part(start: int, stop: int) -> Tensor:
                # a copy: what follows may write into it, which an inference tensor would not even allow
                return self.once(raw[start:stop].clone(), images, image)

            return torch.cat([_part(part, one) for one in chunks(len(raw), each)])

    @property
    def alone(self) -> bool:
        """Whether the tail is run without what comes before it."""
        return self.block is not None or self.layer == "forward_features"

    def once(self, raw: Tensor, images: Tensor, image: int) -> Tensor:
        model: Any = self.backbone.model
        if self.layer == "forward_features":
            return model.forward_head(raw)  # type: ignore[no-any-return]
        if self.block is None:
            many = images[image : image + 1].expand(len(raw), -1, -1, -1)
            with self.replaced(unwrap(model.get_submodule(self.layer)), raw):
                return logits_of(model(many))
        x = raw
        if self.inside:
            args, kwargs = self.inputs[self.block]
            given = args[0][image : image + 1].expand(len(raw), *args[0].shape[1:])
            block = self.backbone.blocks[self.block]
            with self.replaced(unwrap(block.norm1), raw):
                x = block(given, *args[1:], **kwargs)
        for index in range(self.block + 1, len(self.backbone.blocks)):
            args, kwargs = self.inputs[index]
            x = self.backbone.blocks[index](x, *args[1:], **kwargs)
        return model.forward_head(unwrap(model.norm)(x))  # type: ignore[no-any-return]

    def replaced(self, module: nn.Module, raw: Tensor) -> ExitStack:
        """Replace what a module returns, on this thread."""
        stack = ExitStack()
        active = stack.enter_context(watched(module))

        def replace(output: Any) -> Any:
            return (raw, *output[1:]) if isinstance(output, tuple) else raw.to(first_tensor(output).dtype)

        stack.enter_context(hooked(module, active, on_output=replace))
        return stack


def logits_of(output: Any) -> Tensor:
    """Logits (B, K) of what a model returned; of one without a classifier its first token, (B, D)."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output.last_hidden_state[:, 0]  # type: ignore[no-any-return]
