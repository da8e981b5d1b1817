"""Methods that weigh the channels of one layer's activation, most of them by the gradient of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Layer, Observation, Reshape


class LayerMethod(Explainer):
    """What the methods on one layer's activation a (B, D, h, w) and its gradient g share.

    The layer is the last one that still has patch gradients: the input of the last attention where the classifier reads
    the class token, the last block where it averages, the feature map of a CNN. The grid keeps its sign; heat and boxes
    use its positive part.

    Parameters
    ----------
    target_layers
        Layers of the model, by dotted name or as modules, in place of that one; their maps in [0, 1] are averaged.
    reshape_transform
        From a layer's output to (B, D, h, w); never needed, the layout is derived.
    eigen_smooth
        In place of the sum over channels, the projection of the weighted channels on their first principal component.
    """

    requires = frozenset({"gradient"})
    positive = True

    def __init__(
        self,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
        eigen_smooth: bool = False,
    ) -> None:
        if reshape_transform is not None and not callable(reshape_transform):
            raise InputError(f"reshape_transform must be callable or None, got {reshape_transform!r}; leave it out")
        if not isinstance(eigen_smooth, bool):
            raise InputError(f"eigen_smooth must be True or False, got {eigen_smooth!r}")
        self.target_layers, self.reshape_transform, self.eigen_smooth = target_layers, reshape_transform, eigen_smooth

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The channels (B, D, h, w) whose sum is the map."""
        raise NotImplementedError(f"{type(self).__name__} must define weighted(activation, gradient)")

    def grid(self, seen: Observation, target: Any) -> Tensor:
        weighted = self.weighted(*seen.gradient(target))
        total = weighted.sum(dim=1)
        return principal_map(weighted) if self.eigen_smooth else total

    def source(self, seen: Observation) -> str:
        return "the gradient of the target"


@register_explainer
class GradCAM(LayerMethod):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391)::

    w_d = mean_ij g_dij      grid = sum_d w_d a_d
    """

    name = "grad-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean(dim=(2, 3), keepdim=True) * activation


@register_explainer
class GradCAMPlusPlus(LayerMethod):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv:1710.11063)::

        alpha_dij = g^2 / (2 g^2 + g^3 sum_ab a_dab), 0 where g = 0
        w_d = sum_ij alpha_dij relu(g_dij)      grid = sum_d w_d a_d

    The paper explains exp(y), whose higher derivatives are powers of g up to a factor, so that g is that of y itself.
    """

    name = "grad-cam++"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return plus_plus(activation, gradient, gradient**2, gradient**3)


@register_explainer
class SmoothGradCAMPlusPlus(LayerMethod):
    """Smooth Grad-CAM++ (Omeiza et al., 2019, arXiv:1908.01224): Grad-CAM++ with g, g^2 and g^3 averaged over noise::

        x_s = x + sigma (max x - min x) n_s, n_s ~ N(0, 1)
        alpha_dij = <g^2> / (2 <g^2> + <g^3> sum_ab a_dab)      w_d = sum_ij alpha_dij relu(<g_dij>)

    a is the activation of the image itself. Each of ``samples`` is one forward more.

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
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise InputError(f"samples must be an integer of at least 1, the number of noisy images, got {samples!r}")
        if not sigma > 0:
            raise InputError(f"sigma must be above 0, the noise as a share of the image's range, got {sigma!r}")
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
        weighted = plus_plus(seen.activation(), *moments)
        total = weighted.sum(dim=1)
        return principal_map(weighted) if self.eigen_smooth else total


@register_explainer
class XGradCAM(LayerMethod):
    """XGrad-CAM (Fu et al., BMVC 2020, arXiv:2008.02312)::

        w_d = sum_ij g_dij a_dij / sum_ij a_dij      grid = sum_d w_d a_d

    As pytorch-grad-cam, 1e-7 is added to the denominator.
    """

    name = "xgrad-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        whole = activation.sum(dim=(2, 3), keepdim=True) + 1e-7
        return (gradient * activation / whole).sum(dim=(2, 3), keepdim=True) * activation


@register_explainer
class LayerCAM(LayerMethod):
    """LayerCAM (Jiang et al., TIP 2021, doi:10.1109/TIP.2021.3089943)::

    grid = sum_d relu(g_d) a_d
    """

    name = "layer-cam"

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.relu() * activation


@register_explainer
class HiResCAM(LayerMethod):
    """HiResCAM (Draelos & Carin, 2020, arXiv:2011.08891)::

        grid = sum_d g_d a_d

    Where a norm of each token follows the layer, a longer token changes nothing, and this sum is zero everywhere; that
    is refused with the layer to use.
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
        return principal_map(weighted) if self.eigen_smooth else total


@register_explainer
class EigenGradCAM(LayerMethod):
    """Eigen-CAM of gradient times activation, as pytorch-grad-cam has it: class-specific::

        X = (g_d a_d)_(ij, d) less its mean over ij, v its first right singular vector      grid = X v

    The sign is such that the grid goes with HiResCAM's.
    """

    name = "eigen-grad-cam"

    def __init__(
        self,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        super().__init__(target_layers, reshape_transform, eigen_smooth=True)

    def weighted(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient * activation

    def settings(self) -> dict[str, Any]:
        return {"target_layers": self.target_layers, "reshape_transform": self.reshape_transform}


@register_explainer
class EigenCAM(LayerMethod):
    """Eigen-CAM (Muhammad & Yeasin, IJCNN 2020, arXiv:2008.00299): without class and without gradient::

        X = (a_d)_(ij, d) less its mean over ij, v its first right singular vector      grid = X v

    Centred as in pytorch-grad-cam. The sign, which a singular vector leaves open, is such that the grid goes with the
    norm of the activation.
    """

    name = "eigen-cam"
    requires = frozenset({"activation"})
    class_specific = False

    def __init__(
        self,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        super().__init__(target_layers, reshape_transform)

    def grid(self, seen: Observation, target: Any) -> Tensor:
        activation = seen.activation()
        return principal_map(activation, like=activation.pow(2).sum(dim=1))

    def settings(self) -> dict[str, Any]:
        return {"target_layers": self.target_layers, "reshape_transform": self.reshape_transform}

    def source(self, seen: Observation) -> str:
        return "the activation alone"


def plus_plus(activation: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Channels weighed as in Grad-CAM++, from the gradient and its second and third power, (B, D, h, w) each.

    As pytorch-grad-cam, 1e-6 is added to the denominator.
    """
    alpha = second / (2 * second + activation.sum(dim=(2, 3), keepdim=True) * third + 1e-6)
    alpha = alpha.masked_fill(first == 0, 0.0)
    return (alpha * first.relu()).sum(dim=(2, 3), keepdim=True) * activation


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
    wide = x.shape[2] > x.shape[1]
    gram = centred @ centred.transpose(1, 2) if wide else centred.transpose(1, 2) @ centred
    first = torch.linalg.eigh(gram).eigenvectors[:, :, -1:]  # (B, N or D, 1)
    direction = centred.transpose(1, 2) @ first if wide else first  # (B, D, 1)
    length = direction.norm(dim=1, keepdim=True)
    flat = centred.abs().amax(dim=(1, 2), keepdim=True) <= 1e-12 * x.abs().amax(dim=(1, 2), keepdim=True)
    map_ = (centred @ (direction / length.masked_fill(length == 0, 1.0))).masked_fill(flat, 0.0)[..., 0]  # (B, N)
    reference = (x.sum(dim=2) if like is None else like.flatten(1)).double()
    cancelled = reference.norm(dim=1, keepdim=True) <= 1e-5 * x.abs().sum(dim=2).norm(dim=1, keepdim=True)
    reference = reference - reference.mean(dim=1, keepdim=True)
    agreement = (map_ * reference).sum(dim=1, keepdim=True)
    largest = map_.gather(1, map_.abs().argmax(dim=1, keepdim=True))
    decided = agreement.abs() > 1e-3 * map_.norm(dim=1, keepdim=True) * reference.norm(dim=1, keepdim=True)
    decided &= ~cancelled if like is None else True
    signed = torch.where(torch.where(decided, agreement, largest) < 0, -map_, map_)
    return signed.view(-1, *weighted.shape[-2:]).to(weighted.dtype)
