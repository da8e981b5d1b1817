"""Spreading a map over what looks alike: a step of ours, not the paper's, that works after any explainer.

A class map says where the evidence is strongest; the tokens of a middle layer say which places belong together. One
step of a random walk over their affinity carries the evidence to the whole object. The affinity is the product of the
rectified cosines of the layers' tokens, raised to a power, its rows normalised. The cosines are not mean-centred, one
step is enough, and middle layers serve where late ones do not: see ``docs/results.md``.

"ncut" uses the same graph in another way: of all maps it takes the one that stays near the given one and yet cuts the
graph least, in the sense of normalised cuts. A region is filled up to its rim, and little is carried across.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.ops.maps import minmax
from trt_cam.ops.spectral import biased_cut

REFINEMENTS = ("affinity", "ncut")
POWER = 0.75  # of the product of two layers' cosines
CUT_POWER = 4.0  # the same for cuts: weights across a rim must be small
CUT_RANK = 8  # about how many cuts of an image part things from one another


def check_refinement(refine: str | None) -> None:
    """Refuse an unknown refinement."""
    if refine is not None and refine not in REFINEMENTS:
        raise InputError(f"refine must be None or one of {', '.join(REFINEMENTS)}, got {refine!r}")


def refinement(refine: str, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The matrix (B, N, N) with which ``spread`` carries out a refinement; features and size as for ``affinity``."""
    check_refinement(refine)
    return ncut(features, size) if refine == "ncut" else affinity(features, size)


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
    weights = alike(features, size) ** power
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def ncut(
    features: Sequence[Tensor], size: tuple[int, int], *, power: float = CUT_POWER, rank: int = CUT_RANK
) -> Tensor:
    """Biased normalised cut of the positions of a grid: the map that stays near a given one and cuts least::

        W = product of the rectified cosines ** power     (D - W) x_i = lambda_i D x_i, ascending, x_i' D x_i = 1
        map' = sum_i x_i (x_i' D map) / (1 + lambda_i / lambda_rank)

    Ours on a map of evidence; the formula is that of Maji, Vishnoi & Malik (CVPR 2011), see ``biased_cut``.

    Parameters
    ----------
    features, size
        As for ``affinity``.
    power
        Exponent of the product of cosines: larger makes rims count more.
    rank
        Which eigenvalue halves what the map has along its eigenvector: smaller smooths more.

    Returns
    -------
    (B, N, N) float64, rows sum to 1; in time O(N^3)
    """
    return biased_cut(alike(features, size).double() ** power, rank)


def alike(features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Product over the layers of the rectified cosines of a grid's positions, (B, N, N), as ``affinity`` uses it."""
    if not features:
        raise InputError("a refinement needs features of at least one middle layer, got none; use refine=None")
    product: Tensor | None = None
    for layer in features:
        if layer.shape[-2:] != size:
            layer = F.interpolate(layer, size=size, mode="bilinear", align_corners=False)
        tokens = F.normalize(layer.flatten(2).transpose(1, 2), dim=-1)  # (B, N, D)
        cosine = (tokens @ tokens.transpose(1, 2)).clamp(min=0)  # (B, N, N)
        product = cosine if product is None else product * cosine
    assert product is not None
    return product


def spread(seed: Tensor, weights: Tensor) -> Tensor:
    """Carry a map along an affinity, or another matrix of a refinement.

    Parameters
    ----------
    seed : (B, Gh, Gw)
        Raw map; it is stretched to [0, 1] first, and the result again.
    weights : (B, N, N)
        From ``refinement``.

    Returns
    -------
    (B, Gh, Gw), in [0, 1]
    """
    stretched, _ = minmax(seed)
    walked = (weights.to(stretched.dtype) @ stretched.flatten(1)[..., None])[..., 0]  # (B, N)
    return minmax(walked.view_as(seed))[0]
