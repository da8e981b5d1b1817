"""What a caller asks for at a call: targets in all their forms, and options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Normalize
from trt_cam.ops._checks import check_choice
from trt_cam.refine import check_refinement
from trt_cam.targets import Names, resolve_targets

Asked = Any
"""None, a class index or name, one per image or (B, T) of them, a callable from logits (K,) to a scalar, or B of it."""


@dataclass(frozen=True)
class Options:
    """What a call may ask for beside the target; see ``BoundExplainer.__call__``."""

    refine: str | None = None
    aug_smooth: bool = False
    normalize: Normalize | None = None

    def __post_init__(self) -> None:
        check_refinement(self.refine)
        if not isinstance(self.aug_smooth, bool):
            raise InputError(f"aug_smooth must be True or False, got {self.aug_smooth!r}")
        if self.normalize is not None:
            check_choice(self.normalize, "normalize", get_args(Normalize))

    def replaced(self, refine: str | None, aug_smooth: bool | None, normalize: Normalize | None) -> Options:
        """These, with what a call gives in their place."""
        given: dict[str, Any] = {"refine": refine, "aug_smooth": aug_smooth, "normalize": normalize}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def refuse_callables(target: Asked, method: str) -> None:
    """For a method that does not score logits: a class is what it can be asked for."""
    if callable(target) or (isinstance(target, (list, tuple)) and any(map(callable, target))):
        raise InputError(
            f"a callable target needs a method that scores logits, by gradients or more forwards, such as grad-cam; "
            f"got it for {method!r}: give a class index or name"
        )


def resolve_asked(target: Asked, names: Names, count: int, images: Tensor) -> Any:
    """A target in any of its forms for images (B, 3, H, W).

    Parameters
    ----------
    names : K names or None
        Of the model's classes.
    count : K

    Returns
    -------
    (B,) or (B, T) int64 on the images' device, a callable, a list of B callables, or None for the predicted class

    Raises
    ------
    InputError
        A class is out of range or unknown, or there are not as many targets as images.
    """
    B = images.shape[0]
    if callable(target):
        return target
    if isinstance(target, (list, tuple)) and any(map(callable, target)):
        if len(target) != B or not all(map(callable, target)):
            raise InputError(f"one callable for each of {B} images was needed, got {len(target)} targets")
        return list(target)
    rows = target.tolist() if hasattr(target, "tolist") else target
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(row, (list, tuple)) for row in rows):
        if len(rows) != B or len({len(row) for row in rows}) > 1 or not rows[0]:
            raise InputError(f"targets (B, T) need T classes for each of {B} images, got {rows}; give {B} rows of T")
        flat = resolve_targets([one for row in rows for one in row], names, count, None)
        return torch.as_tensor(flat, device=images.device).view(B, -1)
    found = resolve_targets(target, names, count, B)
    return None if found is None else torch.as_tensor(found, device=images.device).expand(B)
