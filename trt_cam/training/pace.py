"""How fast a network with a frozen trunk trains on this machine: tried on a few photos before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.processes import autocast
from trt_cam.training.settings import Precision


def faster(trainee: FrozenTrainee, images: Tensor) -> Precision:
    """The precision, "bf16" or "fp32", in which the trunk is faster; tried only where the hardware knows bfloat16."""
    if not knows_bf16(images.device):
        return "fp32"
    plain, reduced = (seconds(partial(trainee.record, images, precision)) for precision in ("fp32", "bf16"))
    return "bf16" if reduced < plain else "fp32"


def forecast(
    trainee: FrozenTrainee, images: Tensor, epochs: Mapping[str, int], *, photos: float, views: float, precision: str
) -> str:
    """How long a training is likely to take, in words; reading photos and validation come on top.

    Parameters
    ----------
    trainee
        On its device.
    images : (B, 3, H, W)
        A few, to try it on.
    epochs
        By stage.
    photos, views
        Rows of an epoch, and images that the trunk has still to be run on.
    precision : "fp32" or "bf16"
        Of all of it.
    """
    tensors = trainee.record(images, precision)
    took = {"the trunk": views * seconds(partial(trainee.record, images, precision)) / len(images)}
    for stage, count in epochs.items():
        step = seconds(partial(differentiate, trainee, tensors, stage, precision)) / len(images)
        took[f"{count} epoch{'s' * (count != 1)} of {stage}"] = count * photos * step
    parts = ", ".join(f"{spoken(one)} for {name}" for name, one in took.items())
    return f"about {spoken(sum(took.values()))} in {precision}: {parts}"


def differentiate(trainee: FrozenTrainee, tensors: Mapping[str, Tensor], stage: str, precision: str) -> Any:
    """What a step of a stage costs, but for the optimizer: nothing is changed."""
    with autocast(next(trainee.parameters()).device, precision):
        logits = trainee(tensors, stage)
    score = torch.stack([one.float().logsumexp(dim=1).sum() for one in logits.values()]).sum()
    return torch.autograd.grad(score, [*trainee.trained(stage).values()], allow_unused=True)


def seconds(run: Callable[[], Any]) -> float:
    """How long it takes: the shorter of two times, after it was run once."""
    run()
    took = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return min(took)


def knows_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is worth a try: emulated it is slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags: set[str] = set()
    with suppress(OSError):
        found = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = set(next((line for line in found.splitlines() if line.startswith("flags")), "").split())
    if "amx_bf16" in flags:  # virtual machines that show it but do not grant it end the process
        return bool(getattr(torch.cpu, "_init_amx", lambda: False)())
    return device.type == "cpu" and "avx512_bf16" in flags


def spoken(took: float) -> str:
    """A time in words."""
    return f"{took:.0f} s" if took < 100 else f"{took / 60:.0f} min"
