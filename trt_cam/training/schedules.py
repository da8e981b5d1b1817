"""Optimizers and learning rates, timm's by name and the authors' rule, which it does not have."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from trt_cam.errors import InputError
from trt_cam.training.settings import AUTHORS, Settings, Stage, decayed

SCHEDULES = (AUTHORS, "cosine", "tanh", "poly", "constant", "step", "wsd", "rsqrt")
"""Names that ``schedule`` takes: those of timm's that go by updates and need no more than `Settings` has."""


def check_names(optimizer: str, schedule: str) -> None:
    """Refuse an optimizer or a schedule that there is not; the nearest are suggested."""
    from timm.optim import list_optimizers

    if optimizer not in list_optimizers():
        near = difflib.get_close_matches(optimizer, list_optimizers(), n=3, cutoff=0.4)
        raise InputError(f"unknown optimizer {optimizer!r}; did you mean {' or '.join(near) if near else 'adamw'}?")
    if schedule not in SCHEDULES:
        raise InputError(f"unknown schedule {schedule!r}; there are {', '.join(SCHEDULES)}")


def make_optimizer(name: str, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """An optimizer of timm's by name, with its own defaults beside rate and decay."""
    from timm.optim import create_optimizer_v2

    try:
        return create_optimizer_v2(groups, opt=name, lr=lr, weight_decay=0.0)  # type: ignore[no-any-return]
    except (ImportError, AssertionError, RuntimeError) as error:  # of one that needs another package or a GPU
        raise InputError(f"optimizer {name!r} cannot be had here ({error}); use adamw") from error


def make_schedule(optimizer: torch.optim.Optimizer, stage: Stage, settings: Settings, updates: int) -> Any:
    """The learning rate by update, set with ``step_update(number)`` before it; ``updates`` are those of an epoch."""
    if settings.schedule == AUTHORS:
        return AuthorsRule(optimizer, stage, updates)
    from timm.scheduler import create_scheduler_v2

    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=settings.schedule,
        num_epochs=stage.epochs,
        warmup_epochs=settings.warmup,
        warmup_lr=stage.lr / 100,
        min_lr=settings.min_lr,
        step_on_epochs=False,
        updates_per_epoch=updates,
    )
    return schedule


class AuthorsRule:
    """At the start of every epoch whose number one of the steps divides, the rate is multiplied by a factor, once."""

    def __init__(self, optimizer: torch.optim.Optimizer, stage: Stage, updates: int) -> None:
        self.optimizer, self.stage, self.updates = optimizer, stage, updates

    def step_update(self, number: int) -> None:
        """Set the rate of an update, counted from 0."""
        share = decayed(number // self.updates + 1, self.stage.steps, self.stage.factor)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * share * group.get("lr_scale", 1.0)
