"""Methods that try each channel of one layer: what the score becomes with it alone, or without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.explainers.layer import LayerMethod
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Layer, Observation, Reshape, chunks, image_bytes, of_image, precisely, target_scores
from trt_cam.ops._checks import check_count, check_inside

EPS = 1e-8  # added to a channel's range, as in pytorch-grad-cam


class ChannelMethod(LayerMethod):
    """What methods share that find a weight for each channel of one layer's activation a (B, D, h, w) by more forwards.

    Parameters
    ----------
    channels
        None for all D, or how many are tried: those of the largest mean absolute activation. The others count as the
        mean of these where weights are a softmax, and elsewhere not at all. An approximation, the faster the fewer.
    target_layers, reshape_transform
        As in ``LayerMethod``.
    """

    requires = frozenset({"activation", "forward"})

    def __init__(
        self,
        channels: int | None = None,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        super().__init__(target_layers, reshape_transform)
        if channels is not None:
            check_count(channels, "channels, if not None,", 1)
        self.channels = channels

    def grid(self, seen: Observation, target: Any) -> Tensor:
        activation = seen.activation()  # (B, D, h, w)
        maps = []
        for image, channels in enumerate(activation):
            weights = self.weights(seen, target, image, self.tried(channels), channels)
            with precisely(channels):
                maps.append(torch.einsum("d,dhw->hw", weights.to(channels), channels))
        return torch.stack(maps)

    def tried(self, activation: Tensor) -> Tensor:
        """Indices of the channels of (D, h, w) that are tried."""
        D = activation.shape[0]
        if self.channels is None or self.channels >= D:
            return torch.arange(D, device=activation.device)
        return activation.abs().mean(dim=(1, 2)).topk(self.channels).indices.sort().values

    def weights(self, seen: Observation, target: Any, image: int, tried: Tensor, activation: Tensor) -> Tensor:
        """Weights (D,) of the channels of one image, whose activation is (D, h, w) and of which some are tried."""
        raise NotImplementedError(f"{type(self).__name__} must define weights")

    def source(self, seen: Observation) -> str:
        return "the score of perturbed inputs"


@register_explainer
class ScoreCAM(ChannelMethod):
    """Score-CAM (Wang et al., CVPRW 2020, arXiv:1910.01279)::

        M_d = a_d at the input's size, in [0, 1]      w = softmax_d y(x * M_d)      grid = sum_d w_d a_d

    Upsampled with aligned corners, as pytorch-grad-cam does. D forwards for each image.

    Needs the activation of one layer, and more forwards. Class-specific. Signed, > 0 is evidence.
    """

    name = "score-cam"

    def weights(self, seen: Observation, target: Any, image: int, tried: Tensor, activation: Tensor) -> Tensor:
        found = self.scores(seen, target, image, activation[tried])  # (k,)
        return found.mean().repeat(len(activation)).index_copy(0, tried, found).softmax(dim=0)

    def scores(self, seen: Observation, target: Any, image: int, activation: Tensor) -> Tensor:
        """Scores (k,) of the image under each channel of (k, h, w) as a mask."""
        x = seen.images[image]
        found = []
        for part in chunks(len(activation), image_bytes(seen.images)):
            for number, masks in enumerate(self.masks(activation[part], (x.shape[-2], x.shape[-1]))):
                logits = seen.forward(x * masks[:, None].to(x))
                score = target_scores(logits, of_image(target, image, len(masks)))
                found.append((number, score))
        runs = 1 + max(number for number, _ in found)
        return torch.stack([torch.cat([score for at, score in found if at == run]) for run in range(runs)]).mean(dim=0)

    def masks(self, activation: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        """Masks (k, H, W) of channels (k, h, w), one set after the other; their scores are averaged."""
        yield unit(F.interpolate(activation[:, None], size=size, mode="bilinear", align_corners=True)[:, 0])


@register_explainer
class SSCAM(ScoreCAM):
    """SS-CAM (Naidu & Michael, 2020, arXiv:2006.14255): Score-CAM, the scores averaged over noisy channels::

        M_ds = (a_d + sigma (max a_d - min a_d) n_s) at the input's size, in [0, 1], n_s ~ N(0, 1)
        w = softmax_d mean_s y(x * M_ds)      grid = sum_d w_d a_d

    ``samples`` times the cost of Score-CAM.

    Needs the activation of one layer, and more forwards. Class-specific. Signed, > 0 is evidence.

    Parameters
    ----------
    samples, sigma, seed
        Number of noisy maps, their noise as a share of each channel's range, and the seed of the noise.
    channels, target_layers, reshape_transform
        As in ``ChannelMethod``.
    """

    name = "ss-cam"

    def __init__(
        self,
        samples: int = 8,
        sigma: float = 0.1,
        seed: int = 0,
        channels: int | None = None,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        super().__init__(channels, target_layers, reshape_transform)
        check_count(samples, "samples", 1)
        check_inside(sigma, "sigma", 0)
        self.samples, self.sigma, self.seed = samples, sigma, seed

    def masks(self, activation: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        span = activation.amax(dim=(1, 2), keepdim=True) - activation.amin(dim=(1, 2), keepdim=True)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            noise = torch.randn(activation.shape[1:], generator=generator, dtype=torch.float64).to(activation)
            yield from super().masks(activation + self.sigma * span * noise, size)


@register_explainer
class ISCAM(ScoreCAM):
    """IS-CAM (Naidu et al., 2020, arXiv:2010.03023): Score-CAM, the scores integrated along the mask's strength::

        w = softmax_d mean_i y(i / n x * M_d), i = 1 ... n      grid = sum_d w_d a_d

    ``samples`` times the cost of Score-CAM.

    Needs the activation of one layer, and more forwards. Class-specific. Signed, > 0 is evidence.

    Parameters
    ----------
    samples
        Number n of strengths.
    channels, target_layers, reshape_transform
        As in ``ChannelMethod``.
    """

    name = "is-cam"

    def __init__(
        self,
        samples: int = 8,
        channels: int | None = None,
        target_layers: Layer | Sequence[Layer] | None = None,
        reshape_transform: Reshape | None = None,
    ) -> None:
        super().__init__(channels, target_layers, reshape_transform)
        check_count(samples, "samples", 1)
        self.samples = samples

    def masks(self, activation: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        (whole,) = super().masks(activation, size)
        for step in range(1, self.samples + 1):
            yield whole * (step / self.samples)


@register_explainer
class AblationCAM(ChannelMethod):
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020, doi:10.1109/WACV45572.2020.9093360)::

        w_d = (y - y with a_d set to zero) / y      grid = sum_d w_d a_d

    A channel is set to zero everywhere, at the class token too. Only the part of the model after the layer is run
    again, where the family allows. Weights are zero for a score y of zero.

    Needs the activation of one layer, and forwards with another one in its place. Class-specific. Signed, > 0 is
    evidence.
    """

    name = "ablation-cam"
    requires = frozenset({"activation", "replay"})

    def weights(self, seen: Observation, target: Any, image: int, tried: Tensor, activation: Tensor) -> Tensor:
        raw, axis = seen.raw[image], seen.channel_axis - 1
        whole = target_scores(seen.replay(raw[None], image), of_image(target, image, 1))
        found = []
        for part in chunks(len(tried), 16 * raw.numel() * raw.element_size()):
            index = tried[part]
            many = raw.expand(len(index), *raw.shape).clone()
            many.movedim(axis + 1, 1)[torch.arange(len(index), device=index.device), index] = 0
            found.append(target_scores(seen.replay(many, image), of_image(target, image, len(index))))
        drop = whole - torch.cat(found)  # (k,)
        share = torch.where(whole == 0, 0.0, drop / whole.masked_fill(whole == 0, 1.0))
        return share.new_zeros(len(activation)).index_copy(0, tried, share)


def unit(maps: Tensor) -> Tensor:
    """Maps (k, H, W) in [0, 1], each on its own."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + EPS)
