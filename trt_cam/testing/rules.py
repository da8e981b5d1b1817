"""What a check needs: that something holds, that maps are the same, that a model is as it was."""

from __future__ import annotations

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


def state(model: nn.Module) -> dict[str, Any]:
    """All of a model that a method might leave behind."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found: dict[str, Any] = {"grad mode": torch.is_grad_enabled()}
    for name, module in model.named_modules():
        found[f"mode of {name!r}"] = module.training
        found[f"forward of {name!r}"] = "forward" in vars(module)
        found[f"hooks of {name!r}"] = sum(len(getattr(module, kind)) for kind in hooks)
        if hasattr(module, "fused_attn"):
            found[f"fused_attn of {name!r}"] = module.fused_attn
    for name, parameter in model.named_parameters():
        found[f"grad of {name!r}"] = parameter.grad is None
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
