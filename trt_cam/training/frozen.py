"""Training with a frozen backbone, from what its trunk gave of each photo once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trt_cam.backbone import preprocessing
from trt_cam.errors import UnsupportedModelError
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import eval_mode
from trt_cam.training.cut import EXACT, cut_of
from trt_cam.training.networks import Trainee
from trt_cam.training.processes import autocast


class FrozenTrainee(Trainee):
    """A network whose trunk is constant, run from cached tensors of `record` in place of photos.

    Trained are the network's own weights behind the cut (see ``training.cut``): of a transformer the last block, final
    norm and head, and TRT's branches; all of a transformer whose patch embedding has a frozen trunk.

    Parameters
    ----------
    net
        TRTLocalizer, TSCAMNet, or a timm transformer with its classifier. On return the trunk asks for no gradient.
    size : (H, W) pixels, or None for the model's own
        Of all images.

    Raises
    ------
    UnsupportedModelError
        The network is not what its trunk and the rest make together: it was tried on one image.
    """

    def __init__(self, net: nn.Module, size: tuple[int, int] | None = None) -> None:
        super().__init__(net)
        self.cut = cut_of(net, size or preprocessing(getattr(net, "backbone", net)).size)
        self.stages = stages_of(net)
        self._trained: dict[str, tuple[str, ...]] = {}
        self._reads: dict[str, tuple[str, ...]] = {}
        with eval_mode(net), torch.enable_grad():
            self._try()

    def forward(self, batch: Mapping[str, Tensor], stage: str) -> dict[str, Tensor]:
        """Logits (B, K) by branch of cached tensors, of any precision; only what the stage is about is run."""
        dtype = next(self.net.parameters()).dtype
        tensors = {name: batch[name].to(batch[name].dtype if name in EXACT else dtype) for name in self._reads[stage]}
        return self.cut.logits(tensors, self.stages[stage])

    def trained(self, stage: str) -> dict[str, nn.Parameter]:
        """Names and parameters of ``net`` that a stage trains."""
        named = dict(self.net.named_parameters())
        return {name: named[name] for name in self._trained[stage]}

    def reads(self, *stages: str) -> tuple[str, ...]:
        """Names of the tensors that these stages read."""
        return tuple(sorted({name for stage in stages for name in self._reads[stage]}))

    def record(self, images: Tensor, precision: str = "fp32") -> dict[str, Tensor]:
        """What the trunk gives of images (B, 3, H, W), without gradients, in eval mode.

        Parameters
        ----------
        images
            Preprocessed, on the network's device.
        precision : "fp32" or "bf16"
            Of its matrix products.
        """
        with eval_mode(self.net), torch.no_grad(), autocast(images.device, precision):
            return self.cut.record(images)

    def fingerprint(self) -> str:
        """Checksum of the weights before the cut."""
        digest = hashlib.sha256(type(self.cut.frozen).__name__.encode())
        every = set().union(*self._trained.values())
        own = {id(parameter) for name, parameter in self.net.named_parameters() if name in every}
        for name, tensor in self.cut.frozen.state_dict(keep_vars=True).items():
            if id(tensor) not in own:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _try(self) -> None:
        """One image through the network and through its halves: they must agree, and autograd says what is trained."""
        some = next(self.net.parameters())
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(1, 3, *self.cut.size, generator=generator).to(some)
        last = list(self.stages)[-1]
        with torch.no_grad():
            expected = super().forward({"images": images}, last)
            tensors = self.cut.record(images)
        for branch, logits in self.cut.logits(tensors, self.stages[last]).items():
            check_equal(logits, expected[branch], type(getattr(self.net, "backbone", self.net)).__name__)
        for stage, branches in self.stages.items():
            self._trained[stage], self._reads[stage] = self._reached(tensors, stage, branches)
        every = set().union(*self._trained.values())
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in every)

    def _reached(
        self, tensors: Mapping[str, Tensor], stage: str, branches: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the parameters and of the recorded tensors that the logits of a stage depend on."""
        leaves = {name: one.detach().requires_grad_() for name, one in tensors.items()}
        params = {name: one for name, one in self.net.named_parameters() if one.requires_grad}
        score = torch.stack([one.sum() for one in self.cut.logits(leaves, branches).values()]).sum()
        both = [*params.values(), *leaves.values()]
        found = torch.autograd.grad(score, both, allow_unused=True)
        reached = {id(one) for one, gradient in zip(both, found, strict=True) if gradient is not None}
        trained = tuple(name for name, one in params.items() if id(one) in reached)
        if stage == "cam":
            trained = tuple(name for name in trained if name.startswith("cam."))
        # no gradient goes through a selection
        selecting = EXACT & leaves.keys() if "tpsm" in branches else set()
        return trained, tuple(name for name, one in leaves.items() if id(one) in reached or name in selecting)


def stages_of(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """The stages that a network can be trained in, each with the branches whose logits its loss is of."""
    if not isinstance(net, TRTLocalizer):
        return {"ts-cam" if isinstance(net, TSCAMNet) else "classifier": ("logits",)}
    if net.cam is None:
        return {"tpsm": ("tpsm",), "joint": ("tpsm",)}
    return {"tpsm": ("tpsm",), "cam": ("cam",), "joint": ("tpsm", "cam")}


def check_equal(logits: Tensor, expected: Tensor, name: str) -> None:
    """Refuse a network that does more than its trunk and what follows the cut."""
    if logits.shape != expected.shape:
        raise UnsupportedModelError(f"to freeze {name}, it must answer with logits; train all of it")
    logits, expected = logits.detach(), expected.detach()
    off, size = float((logits - expected).abs().max()), float(expected.abs().max())
    if not off <= 1e-3 * max(size, 1.0):
        raise UnsupportedModelError(
            f"to freeze {name}, its forward must be its blocks, norm and head, but logits from its last tokens are "
            f"{off:.2g} off; train all of it"
        )
