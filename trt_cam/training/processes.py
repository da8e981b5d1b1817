"""One training in many processes: who is there, how they share a network, and sums over all of them.

Started by ``torchrun``. Each process takes its share of every batch, and gradients are their mean, so that all take the
step that one process with the whole batch takes. Process 0 alone writes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trt_cam.errors import InputError
from trt_cam.pipeline import device_here
from trt_cam.runs import World, own
from trt_cam.training.settings import Settings, Sharing


def join(device: str | torch.device | None) -> tuple[World, torch.device]:
    """The processes of this run, and the device of this one: a GPU of its own each, if there are any.

    They speak by NCCL between GPUs, by Gloo between CPUs.
    """
    place = device_here(own(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(days=30))  # the fastest waits for the slowest
    return World.current(), place


class Shared:
    """A trainee as the processes share it.

    Parameters
    ----------
    trainee
        With the parameters that are to be trained marked. FSDP shards a copy of it; else it is what is trained.
    world, device
        From `join`.
    sharing
        "ddp": every process holds all weights; "fsdp": each holds a part of them and of the optimizer's state.

    Attributes
    ----------
    module
        What is called, ``module(batch, stage)``.
    inner
        The trainee whose weights are trained.
    """

    def __init__(self, trainee: nn.Module, world: World, device: torch.device, sharing: Sharing) -> None:
        self.sharded = world.size > 1 and sharing == "fsdp"
        self.inner: Any = sharded(copy.deepcopy(trainee), world, device) if self.sharded else trainee
        self.module: Any = self.inner
        if world.size > 1 and not self.sharded:
            devices = [device] if device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(trainee, device_ids=devices)

    @contextlib.contextmanager
    def syncing(self, last: bool) -> Iterator[None]:
        """Exchange gradients after the last part of a batch alone."""
        if self.sharded:
            self.inner.set_requires_gradient_sync(last)
        quiet = isinstance(self.module, nn.parallel.DistributedDataParallel) and not last
        with self.module.no_sync() if quiet else contextlib.nullcontext():
            yield

    def state(self) -> Any:
        """All weights by name, on the CPU; asked for by every process."""
        if not self.sharded:
            return on_cpu(self.inner.state_dict())
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return on_cpu(get_model_state_dict(self.inner, options=StateDictOptions(full_state_dict=True)))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer's state, likewise; None before its first step, which asking for a sharded one would take."""
        if not optimizer.state:
            return None
        if not self.sharded:
            return on_cpu(optimizer.state_dict())
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True)
        return on_cpu(get_optimizer_state_dict(self.inner, optimizer, options=options))

    def load(self, model: Mapping[str, Any], optimizer: torch.optim.Optimizer, state: Mapping[str, Any] | None) -> None:
        """Go on from weights and optimizer state that `state` and `optimizer_state` gave."""
        if not self.sharded:
            self.inner.load_state_dict(model)
            if state is not None:
                optimizer.load_state_dict(dict(state))
            return
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.inner, dict(model), options=options)
        if state is not None:
            set_optimizer_state_dict(self.inner, optimizer, dict(state), options=options)


class Silent:
    """The journal of processes other than 0."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Nothing."""


def sharded(trainee: Any, world: World, device: torch.device) -> Any:
    """A trainee of which every process holds a part: block by block, and the rest as one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from trt_cam.backbone import describe

    mesh = init_device_mesh(device.type, (world.size,))
    net = trainee.net
    blocks = [*describe(getattr(net, "backbone", net)).blocks]
    branches: list[Any] = [getattr(net, name, None) for name in ("tpsm", "cam")]
    blocks += [branch.block for branch in branches if hasattr(branch, "block")]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(trainee, mesh=mesh)


def synchronised(net: nn.Module, settings: Settings, world: World, device: torch.device) -> nn.Module:
    """A network whose batch norms see all processes' photos.

    Raises
    ------
    InputError
        It has some that learn, and the processes run on CPUs, where PyTorch cannot synchronise them.
    """
    learns = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    if world.size == 1 or not learns or settings.batch_norm == "frozen":
        return net
    if device.type != "cuda":
        raise InputError(
            "batch norms that learn need one process on a CPU, or GPUs, got several processes on CPUs; "
            "freeze them: --batch-norm frozen"
        )
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(net)  # type: ignore[no-any-return]


def summed(values: Tensor, world: World) -> Tensor:
    """The sum over all processes."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """What runs in a precision: "bf16", "fp16", or anything else for the weights' own."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, kind) if kind else contextlib.nullcontext()


def on_cpu(state: Any) -> Any:
    """A copy of nested state that later training does not change, its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {name: on_cpu(one) for name, one in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(on_cpu(one) for one in state)
    return state
