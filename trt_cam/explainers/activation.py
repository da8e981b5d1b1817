"""Methods that apply the classifier to every position."""

from __future__ import annotations

import torch
from torch import Tensor

from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.models.trt import TRTOutput
from trt_cam.observe import Observation
from trt_cam.ops.attention import fuse_heads

TRAINED = "the trained CAM branch"


@register_explainer
class CAM(Explainer):
    """Class activation map (Zhou et al., CVPR 2016, arXiv:1512.04150)::

        grid = w_target . f_ij + b_target

    f are the features that the classifier averages: of a transformer, its patch tokens after the last norm. For a model
    whose classifier reads the class token alone this applies it to tokens it was not trained on. A TRT localizer is
    asked for M_C of its CAM branch instead.

    Needs the final features and a classifier of single positions. Class-specific. Signed.
    """

    name = "cam"
    requires = frozenset({"features", "classifier"})
    heads = True

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        if isinstance(seen.output, TRTOutput):
            assert seen.output.m_c is not None
            return seen.output.m_c
        assert seen.features is not None
        return seen.class_map(seen.features, target)

    def source(self, seen: Observation) -> str:
        return TRAINED if isinstance(seen.output, TRTOutput) else source_of(seen)


@register_explainer
class TSCAM(Explainer):
    """Token semantic coupled attention map (Gao et al., ICCV 2021, arXiv:2103.14862)::

        grid = (sum_l mean_h A_l[query, patches]) * (class map of the patch tokens)

    over all L blocks, the product of raw values as in the authors' code. The class map is that of the model's own
    classifier on its patch tokens, or of a trained TS-CAM head (``trt_cam.models.tscam``).

    Needs the query rows, the final features, and a classifier of single positions. Class-specific. Signed.
    """

    name = "ts-cam"
    requires = frozenset({"rows", "features", "classifier"})

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        assert seen.features is not None
        attention = torch.stack([fuse_heads(row) for row in seen.rows]).sum(dim=0)
        return seen.to_grid(attention) * seen.class_map(seen.features, target)

    def source(self, seen: Observation) -> str:
        return source_of(seen)


def source_of(seen: Observation) -> str:
    """Which classifier made the class map."""
    return "the model's own classifier, applied to each position" if seen.head is None else "the trained TS-CAM head"
