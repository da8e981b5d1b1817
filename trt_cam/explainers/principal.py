"""The first principal component of what is at the positions of a grid."""

from __future__ import annotations

import torch
from torch import Tensor


def first_component(x: Tensor) -> Tensor:
    """Scores of positions on their first principal component, up to a sign that nothing decides.

    Parameters
    ----------
    x : (B, N, D) float64
        N positions, centred.

    Returns
    -------
    (B, N) float64
        X v_1 of X = U S V', from the smaller of X X' and X' X.
    """
    wide = x.shape[2] > x.shape[1]
    gram = x @ x.transpose(1, 2) if wide else x.transpose(1, 2) @ x  # (B, N, N) or (B, D, D)
    values, vectors = torch.linalg.eigh(gram)
    first = vectors[:, :, -1]
    return first * values[:, -1:].clamp(min=0).sqrt() if wide else (x @ first[:, :, None])[:, :, 0]


def principal_map(weighted: Tensor, *, like: Tensor | None = None) -> Tensor:
    """Projection of channels on the first principal component of their positions.

    Parameters
    ----------
    weighted : (B, D, h, w)
    like : (B, h, w), None for the sum over channels
        The result goes with it: their covariance is not negative. Where they have none to speak of, or the channels
        cancel out (as at a LayerNorm's input, whose gradient is orthogonal to it), the result's largest absolute value
        is positive.

    Returns
    -------
    (B, h, w), zeros where all positions are the same
    """
    x = weighted.flatten(2).transpose(1, 2).double()  # (B, N, D)
    centred = x - x.mean(dim=1, keepdim=True)
    flat = centred.abs().amax(dim=(1, 2)) <= 1e-12 * x.abs().amax(dim=(1, 2))  # (B,)
    scores = first_component(centred).masked_fill(flat[:, None], 0.0)  # (B, N)
    reference = (x.sum(dim=2) if like is None else like.flatten(1)).double()
    cancelled = reference.norm(dim=1, keepdim=True) <= 1e-5 * x.abs().sum(dim=2).norm(dim=1, keepdim=True)
    reference = reference - reference.mean(dim=1, keepdim=True)
    agreement = (scores * reference).sum(dim=1, keepdim=True)
    largest = scores.gather(1, scores.abs().argmax(dim=1, keepdim=True))
    decided = agreement.abs() > 1e-3 * scores.norm(dim=1, keepdim=True) * reference.norm(dim=1, keepdim=True)
    if like is None:
        decided &= ~cancelled
    signed = torch.where(torch.where(decided, agreement, largest) < 0, -scores, scores)
    return signed.view(-1, *weighted.shape[-2:]).to(weighted.dtype)
