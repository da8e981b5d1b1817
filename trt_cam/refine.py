"""Spreading a map over what looks alike: a step of ours, not the paper's, that works after any explainer.

A class map says where the evidence is strongest; the tokens of a middle layer say which places belong together. One
step of a random walk over their affinity carries the evidence to the whole object. The affinity is the product of the
rectified cosines of the layers' tokens, raised to a power, its rows normalised. The cosines are not mean-centred, one
step is enough, and middle layers serve where late ones do not: see ``docs/results.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops.maps import minmax

REFINEMENTS = ("affinity",)
POWER = 0.75  # of the product of two layers' cosines


def check_refinement(refine: str | None) -> str | None:
    """Refuse an unknown refinement."""
    if refine is not None and refine not in REFINEMENTS:
        raise InputError(f"refine must be None or one of {', '.join(REFINEMENTS)}, got {refine!r}")
    return refine


def affinity(features: Sequence[Tensor], size: tuple[int, int], *, power: float = POWER) -> Tensor:
    """Row-stochastic affinity of the positions of a grid.

    Parameters
    ----------
    features : each (B, D, h, w)
        Outputs of one or more middle layers; brought to ``size`` bilinearly where they differ.
    size : (Gh, Gw)
        Grid of the map to be spread.
    power
        Exponent of the product of cosines: larger keeps the spread among closer tokens.

    Returns
    -------
    (B, N, N), rows sum to 1
    """
    if not features:
        raise InputError("refine='affinity' needs features of at least one middle layer, got none; use refine=None")
    product: Tensor | None = None
    for layer in features:
        if layer.shape[-2:] != size:
            layer = F.interpolate(layer, size=size, mode="bilinear", align_corners=False)
        tokens = F.normalize(layer.flatten(2).transpose(1, 2), dim=-1)  # (B, N, D)
        cosine = (tokens @ tokens.transpose(1, 2)).clamp(min=0)  # (B, N, N)
        product = cosine if product is None else product * cosine
    assert product is not None
    weights = product**power
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def spread(seed: Tensor, weights: Tensor) -> Tensor:
    """Carry a map along an affinity.

    Parameters
    ----------
    seed : (B, Gh, Gw)
        Raw map; it is stretched to [0, 1] first, and the result again.
    weights : (B, N, N)
        From ``affinity``.

    Returns
    -------
    (B, Gh, Gw), in [0, 1]
    """
    stretched, _ = minmax(seed)
    walked = (weights.to(stretched.dtype) @ stretched.flatten(1)[..., None])[..., 0]  # (B, N)
    return minmax(walked.view_as(seed))[0]
