"""Methods that read attention alone: class-agnostic, values >= 0."""

from __future__ import annotations

import torch
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation
from trt_cam.ops.attention import HeadFusion, fuse_heads


@register_explainer
class RawAttention(Explainer):
    """Attention of the class token to the patches, summed over blocks::

        grid = sum_l mean_h A_l[query, patches]

    The query row is the class token's where the classifier reads it, else the mean over patch rows, or the attention
    pool's own row. ``head_fusion`` is "mean", "max" or "min". Not normalised.
    """

    name = "raw-attention"
    requires = frozenset({"rows"})
    class_specific = False

    def __init__(self, head_fusion: HeadFusion = "mean") -> None:
        self.head_fusion = head_fusion

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        return seen.to_grid(torch.stack([fuse_heads(row, self.head_fusion) for row in seen.rows]).sum(dim=0))


@register_explainer
class AttentionRollout(Explainer):
    """Attention rollout (Abnar & Zuidema, ACL 2020, arXiv:2005.00928).

    Follows information from the patches to the query row through all blocks, the skip connection counted as a share
    ``residual`` of every block::

        A'_l = (1 - residual) fuse_h A_l + residual I      R = A'_L ... A'_s      grid = R[query, patches]

    Only one row of R is needed, so it is swept from the last block to ``start_block`` and no product of matrices is
    formed. ``head_fusion`` is "mean", "max" or "min"; with the latter two, rows are divided by their sum.
    """

    name = "rollout"
    requires = frozenset({"attention"})
    class_specific = False

    def __init__(self, head_fusion: HeadFusion = "mean", residual: float = 0.5, start_block: int = 0) -> None:
        if not 0 <= residual < 1:
            raise InputError(f"residual must be in [0, 1), the share of the skip connection, got {residual!r}")
        self.head_fusion, self.residual, self.start_block = head_fusion, residual, start_block

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        blocks = range(len(seen.calls))[self.start_block :]
        if not blocks:
            raise InputError(
                f"start_block must be below {len(seen.calls)}, the number of blocks, got {self.start_block}"
            )
        row = seen.query()  # (B, S)
        for block in reversed(blocks):
            pulled = seen.pull(row, block, head_fusion=self.head_fusion)
            row = (1 - self.residual) * pulled + self.residual * row
        return seen.to_grid(row)
