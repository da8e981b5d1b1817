"""How many digits formulas keep, whatever a model runs in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """A floating tensor in float32, or in float64 if it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
