"""Normalised cuts of a graph over patches, and regions of a patch grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAP = 1e-10
"""Difference of two eigenvalues of the normalised Laplacian (they lie in [0, 2]) below which they are the same."""


def cut_spectrum(weights: Tensor) -> tuple[Tensor, Tensor]:
    """All solutions of (D - W) x = lambda D x, the relaxed normalised cuts (Shi & Malik, TPAMI 2000).

    Solved for all images at once as y of D^-1/2 (D - W) D^-1/2 y = lambda y, x = D^-1/2 y, in float64: parts of a graph
    that hardly touch have eigenvalues that float32 cannot tell apart.

    Parameters
    ----------
    weights : (B, N, N)
        Symmetric, at least 0, D the diagonal of its row sums.

    Returns
    -------
    values : (B, N) float64, ascending
    vectors : (B, N, N) float64
        In columns; X' D X = 1. Zero at positions without any weight, which have lambda 1.
    """
    W = weights.double()
    degree = W.sum(dim=-1)  # (B, N)
    scale = torch.where(degree > 0, degree.clamp(min=torch.finfo(W.dtype).tiny).rsqrt(), 0.0)
    similar = scale[:, :, None] * W * scale[:, None, :]
    values, vectors = torch.linalg.eigh(torch.eye(W.shape[1], dtype=W.dtype, device=W.device) - similar)
    return values, scale[:, :, None] * vectors


def normalised_cut(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The best relaxed normalised cut: the second smallest solution of ``cut_spectrum``.

    Parameters
    ----------
    weights : (B, N, N)
        As there; the graph should be connected.

    Returns
    -------
    x : (B, N) float64
        x' D x = 1; its sign says nothing. Zeros where no cut is better than another.
    found : (B,) bool
        False where no cut is better than another: all weights are the same, or the eigenvalue is a multiple one.
    """
    values, vectors = cut_spectrum(weights)
    found = weights.amax(dim=(1, 2)) > weights.amin(dim=(1, 2))
    if weights.shape[1] > 2:
        found = found & (values[:, 2] - values[:, 1] > GAP)
    x = vectors[:, :, min(1, weights.shape[1] - 1)]
    return torch.where(found[:, None], x, 0.0), found


def biased_cut(weights: Tensor, rank: int) -> Tensor:
    """The matrix of biased normalised cuts (Maji, Vishnoi & Malik, CVPR 2011), their gamma at -lambda_rank::

        M = sum_i x_i x_i' D / (1 + lambda_i / lambda_rank)

    with ``cut_spectrum``'s solutions. M s is the f that minimises sum_p d_p (f_p - s_p)^2 + f' (D - W) f / lambda_rank:
    close to the seed s, and smooth where the weights are large.

    Parameters
    ----------
    weights : (B, N, N)
        As there.
    rank
        Which eigenvalue, counted from 1, is the cost of a cut at which the seed's part along it is halved; at most N.

    Returns
    -------
    (B, N, N) float64
        Rows sum to 1. Of a graph in ``rank`` or more parts that do not touch: the mean over each part.
    """
    isolated = weights.sum(dim=-1) <= 0  # (B, N): each is a part by itself
    W = weights.double() + torch.diag_embed(isolated.double())
    values, X = cut_spectrum(W)
    values = values.clamp(min=0)
    halved = values[:, min(rank, W.shape[1]) - 1, None].clamp(min=GAP)
    return (X / (1 + values / halved)[:, None]) @ X.transpose(1, 2) * W.sum(dim=-1)[:, None]


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
