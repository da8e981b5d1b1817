"""Where a network is cut in two: what its frozen trunk gives, which is kept, and what goes on from there.

A cut has two halves: ``record`` runs the trunk on images, ``logits`` the rest on what was recorded. Together they are
the network's own forward, so weights trained behind a cut are the network's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, describe
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.models.trt import TRTLocalizer, carrier, preliminary_map
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import answering, rewrite_last_block, run_unplaced

EXACT = frozenset({"m"})
"""Kept in float32: what a threshold is laid on."""


class TokenCut:
    """Before the last block: its tokens, and for TRT the attention of all blocks before it and the CAM branch's input.

    ``m`` (B, N) is the preliminary map, ``tokens`` (B, S, D) are Z_{L-1}, ``source`` is what a CAM branch reads where
    that is something else: Z_{L-2} (B, S, D), or the output of the layer it names.

    Parameters
    ----------
    net
        TRTLocalizer, TSCAMNet, or a timm transformer with its classifier.
    size : (H, W) pixels
        Of all images.
    """

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        self.net: Any = net
        self.parts = cuttable(getattr(net, "backbone", net))
        self.size, self.grid_size = size, self.parts.grid_size(*size)
        self.block_args: dict[str, Any] = {}
        cam = getattr(net, "cam", None)
        reads = getattr(cam, "reads", "tokens")
        self.taps = [] if reads == "tokens" else [self.parts.model.get_submodule(reads)]
        self.shares_tokens = not self.taps and getattr(net, "cam_from", "") == "penultimate-output"

    @property
    def frozen(self) -> nn.Module:
        """What holds the weights before the cut."""
        return self.parts.model

    def record(self, images: Tensor) -> dict[str, Tensor]:
        """What the trunk gives of images (B, 3, H, W), by name: (B, ...) each."""
        if (images.shape[-2], images.shape[-1]) != self.size:
            raise InputError(f"images of {self.size[0]} x {self.size[1]} pixels were needed, got {images.shape[-2:]}")
        tensors, block_args = self.inner(images)
        self.block_args = same(self.block_args, block_args, self.parts)
        return tensors

    def inner(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the branches read, by name, and the other arguments of the last block."""
        found: dict[str, Any] = {}

        def rewrite(rows: list[Tensor], tokens: Tensor, block_args: dict[str, Any]) -> Tensor:
            found.update(rows=rows, tokens=tokens, block_args=block_args)
            return tokens[:, : self.parts.prefix + 1]  # as short as can be: what follows is not read

        _, tapped, inner = rewrite_last_block(self.parts, images, rewrite, self.taps)
        tensors = {"tokens": found["tokens"]}
        if isinstance(self.net, TRTLocalizer):
            tensors["m"] = preliminary_map(found["rows"], self.parts.prefix)
            if self.net.cam is not None and not self.shares_tokens:
                tensors |= named("source", tapped[0] if tapped else inner)
        return tensors, found["block_args"]

    def logits(self, tensors: Mapping[str, Tensor], branches: Sequence[str]) -> dict[str, Tensor]:
        """Logits (B, K) of each branch, "tpsm", "cam" or the network's only one, "logits"; nothing else is run."""
        answers = {"tpsm": self.tpsm, "cam": self.cam, "logits": self.only}
        return {branch: answers[branch](tensors) for branch in branches}

    def tpsm(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Logits of TRT's first branch."""
        tokens, P = tensors["tokens"], self.parts.prefix
        args = on(tokens.device, self.block_args)
        fusion, _, _ = self.net.tpsm(tokens, tensors["m"], **args)
        short = torch.cat([tokens[:, :P], fusion[:, None]], dim=1)  # (B, P + 1, D)
        return self.head(run_unplaced(self.parts.blocks[-1], self.parts.attentions[-1], short, **args))

    def cam(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Logits of TRT's class activation branch."""
        source = tensors["tokens"] if self.shares_tokens else unnamed("source", tensors)
        args = {} if self.taps else on(source.device, self.block_args)
        logits: Tensor = self.net.cam.logits(self.net.cam(source, self.grid_size, **args))
        return logits

    def only(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Logits of a network with one branch: its last block, and then a convolution or its own classifier."""
        tokens = tensors["tokens"]
        tokens = self.parts.blocks[-1](tokens, **on(tokens.device, self.block_args))  # (B, S, D)
        if not isinstance(self.net, TSCAMNet):
            return self.head(tokens)
        Gh, Gw = self.grid_size
        patches = self.final(tokens)[:, -Gh * Gw :].transpose(1, 2)  # (B, D, N)
        return self.net.head.logits(patches.unflatten(2, (Gh, Gw)))

    def final(self, tokens: Tensor) -> Tensor:
        """The model's last norm."""
        normed: Tensor = self.parts.model.get_submodule(self.parts.final)(tokens)
        return normed

    def head(self, tokens: Tensor) -> Tensor:
        """Logits of what the last block gave."""
        logits: Tensor = self.parts.model.forward_head(self.final(tokens))  # type: ignore[operator]
        return logits


class TrunkCut(TokenCut):
    """After the frozen trunk inside a patch embedding: all of the transformer behind it is trained.

    ``trunk.0``, ``trunk.1``, ... are the outputs of ``patch_embed.trunk``, (B, C, Gh, Gw) each for ``hybrid_vit``.
    """

    @property
    def frozen(self) -> nn.Module:
        """The trunk."""
        found: nn.Module = self.parts.model.patch_embed.trunk  # type: ignore[union-attr, assignment]
        return found

    def record(self, images: Tensor) -> dict[str, Tensor]:
        """What the trunk gives of images (B, 3, H, W), by name: (B, ...) each."""
        return named("trunk", self.frozen(images))

    def logits(self, tensors: Mapping[str, Tensor], branches: Sequence[str]) -> dict[str, Tensor]:
        """Logits (B, K) of each branch, from the transformer's own forward in which the trunk answers."""
        like = next(iter(tensors.values()))
        images = like.new_zeros(()).expand(len(like), 3, *self.size)  # of which the trunk alone would see anything
        with answering(self.frozen, unnamed("trunk", tensors)):
            inner, self.block_args = self.inner(images)
        return super().logits(inner, branches)


def cut_of(net: nn.Module, size: tuple[int, int]) -> TokenCut:
    """The cut of a network: behind a trunk that is frozen anyway, else before the last block."""
    embed = getattr(getattr(net, "backbone", net), "patch_embed", None)
    return TrunkCut(net, size) if isinstance(getattr(embed, "trunk", None), nn.Module) else TokenCut(net, size)


def cuttable(backbone: nn.Module) -> Backbone:
    """Describe a backbone that can be cut, or say why it cannot."""
    try:
        return carrier(backbone)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"to freeze a backbone, it must be a timm transformer of at least 2 blocks with global attention, got "
            f"{describe(backbone).family} {type(backbone).__name__}; train all of it"
        ) from error


def same(before: Mapping[str, Any], block_args: Mapping[str, Any], parts: Backbone) -> dict[str, Any]:
    """Arguments of a block, which must be the same for all images, so that they need not be kept with each."""
    for name, value in block_args.items():
        constant = value is None or isinstance(value, (bool, int, float, Tensor))
        changed = before and isinstance(value, Tensor) and not torch.equal(value, before[name])
        if not constant or changed:
            raise UnsupportedModelError(
                f"to freeze {type(parts.model).__name__}, its blocks must be given tokens and what is the same for "
                f"all images, but {name} is not; train all of it"
            )
    return {name: one.detach() if isinstance(one, Tensor) else one for name, one in block_args.items()}


def on(device: torch.device, block_args: Mapping[str, Any]) -> dict[str, Any]:
    """A block's arguments on a device."""
    return {name: one.to(device) if isinstance(one, Tensor) else one for name, one in block_args.items()}


def named(name: str, value: Any) -> dict[str, Tensor]:
    """A tensor by its name, several by name and number."""
    if isinstance(value, Tensor):
        return {name: value}
    return {f"{name}.{index}": one for index, one in enumerate(value) if one is not None}


def unnamed(name: str, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``named``; None in place of what is not there."""
    if name in tensors:
        return tensors[name]
    there = {int(key.rpartition(".")[2]): one for key, one in tensors.items() if key.startswith(f"{name}.")}
    return [there.get(index) for index in range(max(there, default=-1) + 1)]
