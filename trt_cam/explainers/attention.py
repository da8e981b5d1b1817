"""Methods that read attention; those that weigh it by its gradient are in ``attention_gradient``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation, shares
from trt_cam.ops._checks import check_choice, check_count, check_inside
from trt_cam.ops.attention import HeadFusion, fuse_heads


class BlockRange(Explainer):
    """What methods on the attention of blocks share: ``start_block``, the first that is read, counted from 0."""

    class_specific = False
    start_block = 0

    def __init__(self, start_block: int = 0) -> None:
        check_count(start_block, "start_block")
        self.start_block = start_block

    def read(self, count: int) -> range:
        """The blocks that are read, of ``count``."""
        start, stop = self.blocks(count)
        if start >= stop:
            raise InputError(f"start_block must be below {stop}, the number of blocks that can be read, got {start}")
        return range(start, stop)


@register_explainer
class RawAttention(BlockRange):
    """Attention of the class token to the patches, summed over blocks::

        grid = sum_l fuse_h A_l[query, patches]

    The query row is the class token's where the classifier reads it, else the mean over patch rows, or the attention
    pool's own row.

    Needs the query rows. Class-agnostic. Values >= 0, not normalised.

    Parameters
    ----------
    head_fusion
        "mean", "max" or "min" over heads.
    start_block
        First block that is summed; of a model with an attention pool that pool alone is read.
    """

    name = "raw-attention"
    requires = frozenset({"rows"})

    def __init__(self, head_fusion: HeadFusion = "mean", start_block: int = 0) -> None:
        super().__init__(start_block)
        self.head_fusion = check_fusion(head_fusion)

    def grid(self, seen: Observation, target: Any) -> Tensor:
        rows = [seen.rows[block] for block in self.read(len(seen.rows))]
        return seen.to_grid(torch.stack([fuse_heads(row, self.head_fusion) for row in rows]).sum(dim=0))


@register_explainer
class LastAttention(Explainer):
    """Attention of the class token in the last block, as DINO shows it (Caron et al., ICCV 2021, arXiv:2104.14294)::

        grid = fuse_h A_L[query, patches]

    The query row as in ``raw-attention``.

    Needs the query rows. Class-agnostic. Values >= 0; with "mean" they sum to at most 1.

    Parameters
    ----------
    head_fusion
        "mean", "max" or "min" over heads.
    """

    name = "last-attention"
    requires = frozenset({"rows"})
    class_specific = False

    def __init__(self, head_fusion: HeadFusion = "mean") -> None:
        self.head_fusion = check_fusion(head_fusion)

    def blocks(self, count: int) -> tuple[int, int]:
        return count - 1, count

    def grid(self, seen: Observation, target: Any) -> Tensor:
        return seen.to_grid(fuse_heads(seen.rows[-1], self.head_fusion))


@register_explainer
class AttentionRollout(BlockRange):
    """Attention rollout (Abnar & Zuidema, ACL 2020, arXiv:2005.00928).

    Follows information from the patches to the query row through all blocks, the skip connection counted as a share
    ``residual`` of every block::

        A'_l = (1 - residual) fuse_h A_l + residual I      R = A'_L ... A'_s      grid = R[query, patches]

    Only one row of R is needed, so it is swept from the last block to the first and no product of matrices is formed.

    Needs the attention of all blocks. Class-agnostic. Values >= 0 that sum to at most 1.

    Parameters
    ----------
    head_fusion
        "mean", "max" or "min" over heads; with the latter two, rows are divided by their sum.
    residual
        Share of the skip connection, in [0, 1).
    start_block
        First block of the product.
    discard_ratio
        Share of the smallest entries of each fused matrix that are set to zero, in [0, 1); rows are then divided by
        their sum. As vit-explain has it, but with every row, also the class token's, treated alike.
    """

    name = "rollout"
    requires = frozenset({"attention"})

    def __init__(
        self,
        head_fusion: HeadFusion = "mean",
        residual: float = 0.5,
        start_block: int = 0,
        discard_ratio: float = 0.0,
    ) -> None:
        super().__init__(start_block)
        check_inside(residual, "residual", 0, 1, or_low=True)
        check_inside(discard_ratio, "discard_ratio", 0, 1, or_low=True)
        self.head_fusion, self.residual, self.discard_ratio = check_fusion(head_fusion), residual, discard_ratio

    def grid(self, seen: Observation, target: Any) -> Tensor:
        row = seen.query()  # (B, S)
        for block in reversed(self.read(len(seen.calls))):
            row = (1 - self.residual) * self.pulled(seen, row, block) + self.residual * row
        return seen.to_grid(row)

    def pulled(self, seen: Observation, row: Tensor, block: int) -> Tensor:
        """``row`` times the fused attention matrix of a block."""
        if not self.discard_ratio:
            return seen.pull(row, block, head_fusion=self.head_fusion)

        def fused(start: int, stop: int) -> Tensor:
            return fuse_heads(seen.calls[block].rows(start, stop), self.head_fusion)

        kept = discarding(seen, block, fused, self.discard_ratio)
        return seen.pull_fused(row, block, lambda start, stop: shares(kept(start, stop)))


@register_explainer
class AttentionProduct(BlockRange):
    """Product of attention matrices, TransFG's part selection (He et al., AAAI 2022, arXiv:2103.07976)::

        P_h = A_(L-1),h ... A_s,h      grid = fuse_h P_h[query, patches]

    Each head for itself, without skip connection, up to the block before the last, whose input TransFG selects from.

    Needs the attention of all blocks. Class-agnostic. Values >= 0; with "mean" they sum to at most 1.

    Parameters
    ----------
    head_fusion
        "mean", "max" or "min" over the heads of the product.
    start_block
        First block of the product.
    """

    name = "attention-product"
    requires = frozenset({"attention"})

    def __init__(self, head_fusion: HeadFusion = "mean", start_block: int = 0) -> None:
        super().__init__(start_block)
        self.head_fusion = check_fusion(head_fusion)

    def blocks(self, count: int) -> tuple[int, int]:
        return self.start_block, max(1, count - 1)

    def grid(self, seen: Observation, target: Any) -> Tensor:
        row = seen.query()  # (B, S), then one for each head
        for block in reversed(self.read(len(seen.calls))):
            row = seen.calls[block].weighed(row)
        return seen.to_grid(fuse_heads(row, self.head_fusion))


Rows = Callable[[int, int], Tensor]
"""Rows ``start:stop`` of a matrix that is not kept, (B, rows, S)."""


def discarding(seen: Observation, block: int, rows: Rows, ratio: float) -> Rows:
    """The same rows with a share of the whole matrix's smallest entries set to zero."""
    if not ratio:
        return rows
    matrix = torch.cat([rows(start, stop) for start, stop in seen.calls[block].chunks()], dim=1)  # (B, S, S)
    entries = matrix.flatten(1)
    least = entries.topk(int(entries.shape[1] * ratio), dim=1, largest=False).indices
    matrix = entries.scatter(1, least, 0.0).view_as(matrix)
    return lambda start, stop: matrix[:, start:stop]


def check_fusion(head_fusion: str) -> Any:
    """A fusion of heads, if it is known."""
    check_choice(head_fusion, "head_fusion", get_args(HeadFusion))
    return head_fusion
