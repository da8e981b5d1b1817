"""Methods that differentiate the target with respect to one layer's activation."""

from __future__ import annotations

from torch import Tensor

from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation


@register_explainer
class GradCAM(Explainer):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391)::

        w_d = mean_ij dy/da_dij      grid = sum_d w_d a_d

    a is the activation of the layer that still has patch gradients: the input of the last attention where the
    classifier reads the class token, the last block where it averages, the feature map of a CNN. The grid keeps its
    sign; heat and boxes use its positive part, as the paper does.
    """

    name = "grad-cam"
    requires = frozenset({"gradient"})
    positive = True

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        activation, gradient = seen.gradient(target)  # (B, D, Gh, Gw)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        return (weights * activation).sum(dim=1)

    def source(self, seen: Observation) -> str:
        return "the gradient of the target"
