"""What training makes smaller: the cross entropy of every branch with the photo's label (Eq. 2), and labels mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_loss(logits: Mapping[str, Tensor], label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy, summed over branches, of their mean over the photos.

    Parameters
    ----------
    logits : (B, K) by branch
        One branch in a stage of its own; both at once are the paper's Eq. 2.
    label : (B,) int64, or (B, K) shares that sum to 1
    smoothing : in [0, 1)
        Share of every label that is spread over all classes.
    """
    branches = [F.cross_entropy(one.float(), label, label_smoothing=smoothing) for one in logits.values()]
    return torch.stack(branches).sum()


class Mixing:
    """timm's mixup and CutMix on a batch; its labels become shares of two classes."""

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        from timm.data import Mixup

        # smoothing is the loss's affair, which knows the stage
        self.mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=num_classes)

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images, label = self.mix(batch["images"].clone(), batch["label"])
        return {**batch, "images": images, "label": label}


def parts_of(batch: Mapping[str, Tensor], count: int) -> Iterator[tuple[dict[str, Tensor], float]]:
    """A batch in ``count`` parts, each with its share of the photos."""
    total = len(batch["label"])
    split: dict[str, Any] = {name: one.tensor_split(min(count, total)) for name, one in batch.items()}
    for place in range(min(count, total)):
        part = {name: pieces[place] for name, pieces in split.items()}
        yield part, len(part["label"]) / total
