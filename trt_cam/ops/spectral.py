"""Normalised cuts of a graph over patches, and regions of a patch grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAP = 1e-10
"""Difference of two eigenvalues of the normalised Laplacian (they lie in [0, 2]) below which they are the same."""


def normalised_cut(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The relaxed normalised cut (Shi & Malik, TPAMI 2000): the second smallest eigenvector of (D - W) x = lambda D x.

    Solved for all images at once as y of D^-1/2 (D - W) D^-1/2 y = lambda y, x = D^-1/2 y, in float64: parts of a graph
    that hardly touch have eigenvalues that float32 cannot tell apart.

    Parameters
    ----------
    weights : (B, N, N)
        Symmetric, at least 0, D the diagonal of its row sums; it should be connected.

    Returns
    -------
    x : (B, N) float64
        x' D x = 1; its sign says nothing. Zeros where no cut is better than another.
    found : (B,) bool
        False where no cut is better than another: all weights are the same, or the eigenvalue is a multiple one.
    """
    W = weights.double()
    degree = W.sum(dim=-1)  # (B, N)
    scale = torch.where(degree > 0, degree.clamp(min=torch.finfo(W.dtype).tiny).rsqrt(), 0.0)
    similar = scale[:, :, None] * W * scale[:, None, :]
    values, vectors = torch.linalg.eigh(torch.eye(W.shape[1], dtype=W.dtype, device=W.device) - similar)
    found = W.amax(dim=(1, 2)) > W.amin(dim=(1, 2))
    if W.shape[1] > 2:
        found = found & (values[:, 2] - values[:, 1] > GAP)
    x = scale * vectors[:, :, min(1, W.shape[1] - 1)]
    return torch.where(found[:, None], x, 0.0), found


def connected_region(mask: Tensor, seed: Tensor) -> Tensor:
    """The part of a mask that is 4-connected to a seed.

    Parameters
    ----------
    mask : (B, Gh, Gw) bool
    seed : (B,) int64
        Index of the seed in the flattened grid.

    Returns
    -------
    (B, Gh, Gw) bool, empty where the mask does not hold the seed
    """
    start = F.one_hot(seed, mask[0].numel()).bool().view_as(mask)
    reached, grown = torch.zeros_like(mask), start & mask
    while not torch.equal(reached, grown):
        reached = grown
        padded = F.pad(reached, (1, 1, 1, 1))
        beside = padded[:, 2:, 1:-1] | padded[:, :-2, 1:-1] | padded[:, 1:-1, 2:] | padded[:, 1:-1, :-2]
        grown = (reached | beside) & mask
    return reached
