"""What a check needs: that something holds, that maps are the same, that a model is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ConformanceError(AssertionError):
    """An explainer breaks a rule: which, what was needed, what came."""


def need(holds: bool, what: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise ConformanceError(what)


def same(one: Tensor, other: Tensor, what: str) -> None:
    """Equal up to the rounding of another batch size."""
    need(
        one.shape == other.shape, f"{what}: the same shape was needed, got {tuple(one.shape)} and {tuple(other.shape)}"
    )
    scale = max(float(other.abs().max()), 1e-12)
    need(float((one - other).abs().max()) <= 1e-3 * scale, f"{what}: the same map was needed, got another")


@contextmanager
def unsettled(model: nn.Module) -> Iterator[None]:
    """The model in the middle of somebody's work: partly in training mode, a weight frozen, one with a gradient."""
    modules, parameters = list(model.modules()), list(model.parameters())
    modes, frozen = [module.training for module in modules], parameters[0].requires_grad
    kept, free = parameters[-1].grad, parameters[-1]
    try:
        model.train()
        modules[-1].training = False
        parameters[0].requires_grad_(False)
        free.grad = torch.ones_like(free)
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
        parameters[0].requires_grad_(frozen)
        free.grad = kept


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def state(model: nn.Module) -> dict[str, Any]:
    """All that a method might leave behind: in the model, and around it."""
    found: dict[str, Any] = {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "flash attention": torch.backends.cuda.flash_sdp_enabled(),
    }
    for name, module in model.named_modules():
        found[f"mode of {name!r}"] = module.training
        found[f"attributes of {name!r}"] = sorted(vars(module))
        found[f"hooks of {name!r}"] = sum(len(getattr(module, kind)) for kind in HOOKS)
        if hasattr(module, "fused_attn"):
            found[f"fused_attn of {name!r}"] = module.fused_attn
    for name, parameter in model.named_parameters():
        found[f"grad of {name!r}"] = None if parameter.grad is None else float(parameter.grad.double().sum())
        found[f"requires_grad of {name!r}"] = parameter.requires_grad
        found[f"values of {name!r}"] = float(parameter.detach().double().sum())
    for name, buffer in model.named_buffers():
        found[f"values of {name!r}"] = float(buffer.double().sum())
    return found


def compare(before: dict[str, Any], after: dict[str, Any], when: str) -> None:
    """Raise for the first thing that changed."""
    changed = [name for name in before if after.get(name) != before[name]] + [
        name for name in after if name not in before
    ]
    need(not changed, f"the model as it was was needed {when}, but it changed: {', '.join(changed[:3])}")
