"""What functions demand of their arguments, each demand worded once: here, and above by who asks for the same."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

from trt_cam.errors import InputError


def check_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity, except while a graph is traced, when there are no values to look at."""
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} must be finite, got NaN or infinity in {_describe(values)}; look at what made it")


def check_nonnegative(values: Tensor, name: str) -> None:
    """Refuse values below 0, except while a graph is traced."""
    if not torch.compiler.is_compiling() and bool((values < 0).any()):
        raise InputError(f"{name} must be at least 0, got {float(values.min()):g}")


def check_floating(values: Tensor, name: str, axes: str) -> None:
    """Require a floating tensor with the axes named by letters, such as ``"B, N"``."""
    if not isinstance(values, Tensor):
        raise InputError(f"{name} must be a tensor ({axes}), got {type(values).__name__}")
    if values.ndim != axes.count(",") + 1 or not values.is_floating_point():
        raise InputError(f"{name} must be a floating tensor ({axes}), got {_describe(values)}")


def check_keep(keep: Tensor, shape: tuple[int, ...]) -> None:
    """Require a selection: bool, one value per patch token."""
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool or tuple(keep.shape) != shape:
        came = _describe(keep) if isinstance(keep, Tensor) else type(keep).__name__
        raise InputError(f"keep must be a bool tensor of shape {shape}, got {came}")


def check_range(value: float, name: str, low: float, high: float = math.inf) -> None:
    """Require a real number from ``low`` to ``high``, both included."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        wanted = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise InputError(f"{name} must be a number {wanted}, got {value!r}")


def check_inside(value: float, name: str, low: float, high: float = math.inf, *, or_low: bool = False) -> None:
    """Require a real number above ``low``, or with ``or_low`` at least that, and below ``high``."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and low <= float(value) < high and (or_low or float(value) > low)):
        wanted = f"above {low:g}" if high == math.inf else f"in {'[' if or_low else '('}{low:g}, {high:g})"
        raise InputError(f"{name} must be {wanted}, got {value!r}")


def check_count(value: int, name: str, low: int = 0) -> None:
    """Require an integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:
        raise InputError(f"{name} must be an integer of at least {low}, got {value!r}")


def check_choice(value: str, name: str, choices: Iterable[str]) -> None:
    """Require one of a few words."""
    if value not in (words := tuple(choices)):
        raise InputError(f"{name} must be one of {', '.join(words)}, got {value!r}")


def _describe(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"
