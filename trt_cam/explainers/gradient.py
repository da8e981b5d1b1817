"""Methods that weigh the channels of one layer's activation, most of them by the gradient of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers.layer import LayerMethod
from trt_cam.explainers.principal import principal_map
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Layer, Observation, Reshape
from trt_cam.ops._checks import check_count, check_inside


class GradientMethod(LayerMethod):
    """What methods share that weigh the channels by the target's gradient g at the layer.

    Parameters
    ----------
    eigen_smooth
        In place of the sum over channels, the projection of the weighted channels on their first principal component.
    """

    requires = frozenset({"gradient"})

    def __init__(
        self,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
        eigen_smooth: bool = False,
    ) -> None:
        super().__init__(target_layers, reshape_transform)
        if not isinstance(eigen_smooth, bool):
            raise InputError(f"eigen_smooth must be True or False, got {eigen_smooth!r}")
        self.eigen_smooth = eigen_smooth

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The channels (B, D, h, w) whose sum is the map."""
        raise NotImplementedError(f"{type(self).__name__} must define weighted(activation, gradient)")

    def grid(self, seen: Observation, target: Any) -> Tensor:
        return self.joined(self.weighted(*seen.gradient(target)))

    def joined(self, weighted: Tensor) -> Tensor:
        """The map (B, h, w) of weighted channels."""
        return principal_map(weighted) if self.eigen_smooth else weighted.sum(dim=1)

    def source(self, seen: Observation) -> str:
        return "the gradient of the target"


@register_explainer
class GradCAM(GradientMethod):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391)::

        w_d = mean_ij g_dij      grid = sum_d w_d a_d

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "grad-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean(dim=(2, 3), keepdim=True) * activation


@register_explainer
class GradCAMPlusPlus(GradientMethod):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv:1710.11063)::

        alpha_dij = g^2 / (2 g^2 + g^3 sum_ab a_dab), 0 where g = 0
        w_d = sum_ij alpha_dij relu(g_dij)      grid = sum_d w_d a_d

    The paper explains exp(y), whose higher derivatives are powers of g up to a factor, so that g is that of y itself.
    As pytorch-grad-cam, 1e-6 is added to the denominator.

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "grad-cam++"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return plus_plus(activation, gradient, gradient**2, gradient**3)


@register_explainer
class SmoothGradCAMPlusPlus(GradientMethod):
    """Smooth Grad-CAM++ (Omeiza et al., 2019, arXiv:1908.01224): Grad-CAM++ with g, g^2 and g^3 averaged over noise::

        x_s = x + sigma (max x - min x) n_s, n_s ~ N(0, 1)
        alpha_dij = <g^2> / (2 <g^2> + <g^3> sum_ab a_dab)      w_d = sum_ij alpha_dij relu(<g_dij>)

    a is the activation of the image itself. Each of ``samples`` is one forward and backward more.

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.

    Parameters
    ----------
    samples, sigma, seed
        Number of noisy images, their noise as a share of each image's range, and the seed of the noise.
    """

    name = "smooth-grad-cam++"

    def __init__(
        self,
        samples: int = 8,
        sigma: float = 0.15,
        seed: int = 0,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
        eigen_smooth: bool = False,
    ) -> None:
        super().__init__(target_layers, reshape_transform, eigen_smooth)
        check_count(samples, "samples", 1)
        check_inside(sigma, "sigma", 0)
        self.samples, self.sigma, self.seed = samples, sigma, seed

    def grid(self, seen: Observation, target: Any) -> Tensor:
        images = seen.images
        spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
        moments: list[Tensor] = []
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float64).to(images)
            _, gradient = seen.again(images + self.sigma * spread * noise).gradient(target)
            powers = [gradient**power / self.samples for power in (1, 2, 3)]
            moments = [total + power for total, power in zip(moments, powers, strict=True)] if moments else powers
        return self.joined(plus_plus(seen.activation(), *moments))


@register_explainer
class XGradCAM(GradientMethod):
    """XGrad-CAM (Fu et al., BMVC 2020, arXiv:2008.02312)::

        w_d = sum_ij g_dij a_dij / sum_ij a_dij      grid = sum_d w_d a_d

    As pytorch-grad-cam, 1e-7 is added to the denominator.

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "xgrad-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        whole = activation.sum(dim=(2, 3), keepdim=True) + 1e-7
        return (gradient * activation / whole).sum(dim=(2, 3), keepdim=True) * activation


@register_explainer
class LayerCAM(GradientMethod):
    """LayerCAM (Jiang et al., TIP 2021, doi:10.1109/TIP.2021.3089943)::

        grid = sum_d relu(g_d) a_d

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "layer-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.relu() * activation


@register_explainer
class HiResCAM(GradientMethod):
    """HiResCAM (Draelos & Carin, 2020, arXiv:2011.08891)::

        grid = sum_d g_d a_d

    Where a norm of each token follows the layer, a longer token changes nothing, and this sum is zero everywhere; that
    is refused with the layer to use.

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "hires-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient * activation

    def grid(self, seen: Observation, target: Any) -> Tensor:
        weighted = self.weighted(*seen.gradient(target))
        total, size = weighted.sum(dim=1), weighted.abs().sum(dim=1)
        rounding = max(1e-4, 4 * torch.finfo(seen.raw.dtype).eps)
        if size.any() and not (total.abs() > rounding * size.amax(dim=(1, 2), keepdim=True)).any():
            after = seen.backbone.final if seen.backbone.pooling in ("avg", "map") else ""
            instead = f"target_layers=[{after!r}], or " if after else ""
            raise UnsupportedModelError(
                f"hires-cam needs a layer at which gradient times activation does not cancel, but over the channels of "
                f"{seen.layer!r} it sums to zero at every place, for a norm follows; use {instead}grad-cam or layer-cam"
            )
        return self.joined(weighted)


@register_explainer
class EigenGradCAM(LayerMethod):
    """Eigen-CAM of gradient times activation, as pytorch-grad-cam has it::

        X = (g_d a_d)_(ij, d) less its mean over ij, v its first right singular vector      grid = X v

    The sign is such that the grid goes with HiResCAM's.

    Needs the gradient at one layer. Class-specific. Signed, > 0 is evidence.
    """

    name = "eigen-grad-cam"
    requires = frozenset({"gradient"})

    def grid(self, seen: Observation, target: Any) -> Tensor:
        activation, gradient = seen.gradient(target)
        return principal_map(gradient * activation)

    def source(self, seen: Observation) -> str:
        return "the gradient of the target"


@register_explainer
class EigenCAM(LayerMethod):
    """Eigen-CAM (Muhammad & Yeasin, IJCNN 2020, arXiv:2008.00299): without class and without gradient::

        X = (a_d)_(ij, d) less its mean over ij, v its first right singular vector      grid = X v

    Centred as in pytorch-grad-cam. The sign, which a singular vector leaves open, is such that the grid goes with the
    norm of the activation.

    Needs the activation of one layer. Class-agnostic. Signed, > 0 is evidence.
    """

    name = "eigen-cam"
    class_specific = False

    def grid(self, seen: Observation, target: Any) -> Tensor:
        activation = seen.activation()
        return principal_map(activation, like=activation.pow(2).sum(dim=1))

    def source(self, seen: Observation) -> str:
        return "the activation alone"


def plus_plus(activation: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Channels weighed as in Grad-CAM++, from the gradient and its second and third power, (B, D, h, w) each.

    As pytorch-grad-cam, 1e-6 is added to the denominator.
    """
    alpha = second / (2 * second + activation.sum(dim=(2, 3), keepdim=True) * third + 1e-6)
    alpha = alpha.masked_fill(first == 0, 0.0)
    return (alpha * first.relu()).sum(dim=(2, 3), keepdim=True) * activation
