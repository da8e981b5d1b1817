"""Methods that weigh attention by the derivative of the target with respect to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trt_cam.explainers.attention import BlockRange, Rows, discarding
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation, shares
from trt_cam.ops._checks import check_inside


class AttentionGradient(BlockRange):
    """What methods share that weigh attention A by the derivative dA of the target: sweeps of one row."""

    requires = frozenset({"attention gradient"})
    class_specific = True

    def source(self, seen: Observation) -> str:
        return "the gradient of the target by attention"


@register_explainer
class GradientRollout(AttentionGradient):
    """Gradient rollout, as vit-explain has it (Gildenblat, 2020, github.com/jacobgil/vit-explain)::

        G_l = relu(mean_h A_l * dA_l)      A'_l = rows of (G_l + I) divided by their sum
        R = A'_L ... A'_s                  grid = R[query, patches]

    vit-explain divides columns by the sums of rows, by a slip of broadcasting; here rows are. G is small beside I where
    the target's derivative is: a factor on a callable target changes the map.

    Needs the gradient of attention. Class-specific. Values >= 0 that sum to at most 1.

    Parameters
    ----------
    discard_ratio
        Share of the smallest entries of G that are set to zero, in [0, 1).
    start_block
        First block of the product.
    """

    name = "gradient-rollout"

    def __init__(self, discard_ratio: float = 0.0, start_block: int = 0) -> None:
        super().__init__(start_block)
        check_inside(discard_ratio, "discard_ratio", 0, 1, or_low=True)
        self.discard_ratio = discard_ratio

    def grid(self, seen: Observation, target: Any) -> Tensor:
        blocks = self.read(len(seen.calls))
        gradients = seen.attention_gradients(target, blocks.start)
        row = seen.query()
        for block in reversed(blocks):
            weighted = weighted_rows(seen, gradients, block, blocks.start)
            row = seen.pull_fused(row, block, skipping(discarding(seen, block, weighted, self.discard_ratio)))
        return seen.to_grid(row)


@register_explainer
class TransformerAttribution(AttentionGradient):
    """Generic attention explainability (Chefer et al., ICCV 2021, arXiv:2103.15679), for self-attention::

        G_l = mean_h relu(A_l * dA_l)      R = (I + G_L) ... (I + G_s)      grid = R[query, patches]

    The successor of the authors' relevance propagation (CVPR 2021, arXiv:2012.09838), which needs rewritten layers.

    Needs the gradient of attention. Class-specific. Values >= 0.

    Parameters
    ----------
    start_block
        First block of the product.
    """

    name = "transformer-attribution"

    def grid(self, seen: Observation, target: Any) -> Tensor:
        blocks = self.read(len(seen.calls))
        gradients = seen.attention_gradients(target, blocks.start)
        row = seen.query()
        for block in reversed(blocks):
            row = row + seen.pull_fused(row, block, weighted_rows(seen, gradients, block, blocks.start, relu=True))
        return seen.to_grid(row)


def weighted_rows(seen: Observation, gradients: list[Tensor], block: int, first: int, *, relu: bool = False) -> Rows:
    """Rows of a block's G: mean over heads of A * dA, without its negative part before the mean (``relu``) or after."""
    call, gradient = seen.calls[block], gradients[block - first]

    def rows(start: int, stop: int) -> Tensor:
        product = call.rows(start, stop).detach() * call.gradient_rows(gradient, start, stop)  # (B, nh, rows, S)
        return product.relu_().mean(dim=1) if relu else product.mean(dim=1).relu_()

    return rows


def skipping(rows: Rows) -> Rows:
    """The same rows with the identity added, divided by their sum."""

    def with_skip(start: int, stop: int) -> Tensor:
        part = rows(start, stop).clone()
        part.diagonal(start, dim1=1, dim2=2).add_(1)
        return shares(part)

    return with_skip
