"""How good a network is at naming photos that it is not trained on: what the epoch is chosen by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from trt_cam.runs import World
from trt_cam.training.losses import classification_loss
from trt_cam.training.processes import summed


class Batches(Protocol):
    """Batches of an epoch, the same whenever they are asked for."""

    def __len__(self) -> int: ...
    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Tensor]]: ...


@torch.no_grad()
def validate(
    judged: Any, stage: str, batches: Batches, autocast: AbstractContextManager[Any], world: World, device: torch.device
) -> dict[str, float]:
    """Loss of a stage, and accuracy of every branch, over the photos of all processes.

    Returns
    -------
    ``val_loss``; ``top1`` of the branch that ranks classes; ``top1_cam`` of TRT's CAM branch.
    """
    judged.eval()
    total = torch.zeros(4, device=device, dtype=torch.float64)  # photos, loss, right, right by the CAM branch
    for batch in batches.epoch(0):
        batch = {name: one.to(device, non_blocking=True) for name, one in batch.items()}
        with autocast:
            logits = judged(batch, "joint" if stage in ("tpsm", "cam") else stage)
        total += counted(logits, batch["label"], stage)
    photos, loss, right, right_cam = summed(total, world).tolist()
    values = {"val_loss": loss / photos, "top1": right / photos}
    return values | ({"top1_cam": right_cam / photos} if "cam" in logits else {})


def counted(logits: Mapping[str, Tensor], label: Tensor, stage: str) -> Tensor:
    """Photos, sum of their losses, right answers of the branch that ranks and of the CAM branch: (4,)."""
    there = label >= 0  # the others fill the batch of a process that has none left
    logits, label = {name: one[there] for name, one in logits.items()}, label[there]
    trained = logits if stage == "joint" else {stage: logits.get(stage, logits.get("logits"))}
    ranks = logits["tpsm"] if "tpsm" in logits else logits["logits"]
    loss = classification_loss(trained, label) * len(label) if len(label) else label.sum()  # type: ignore[arg-type]
    right = (ranks.argmax(dim=1) == label).sum()
    right_cam = (logits["cam"].argmax(dim=1) == label).sum() if "cam" in logits else right
    return torch.stack([there.sum(), loss, right, right_cam]).double()
