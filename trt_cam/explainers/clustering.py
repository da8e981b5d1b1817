"""Methods that find an object by how patches group, without any class."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers.base import Explainer
from trt_cam.explainers.principal import first_component
from trt_cam.explainers.registry import register_explainer
from trt_cam.observe import Observation
from trt_cam.ops._checks import check_choice, check_count, check_inside
from trt_cam.ops.spectral import connected_region, normalised_cut

Features = Literal["keys", "tokens"]
Region = Literal["side", "component"]
SAME = 1e-9
"""Relative difference of float64 values that rounding in an eigenvector may make."""


class Grouping(Explainer):
    """What methods that group patches share: the features f (B, N, D) of the patches, and the region that is kept.

    Parameters
    ----------
    features
        "keys": of the last attention, as its dot products see them, heads concatenated, D = nh d; or "tokens": the
        final features, mean-centred over the patches of an image, for those of a ReLU agree in sign everywhere and
        those of a norm share a large mean; or None: keys where the model shows them, else tokens.
    region
        "side": everything on the object's side; or "component": of it only what is 4-connected to the seed.
    """

    requires = frozenset({"features"})
    wants = frozenset({"keys"})
    class_specific = False
    positive = True

    def __init__(self, features: Features | None = None, region: Region = "side") -> None:
        if features is not None and features not in get_args(Features):
            raise InputError(f"features must be None or one of {', '.join(get_args(Features))}, got {features!r}")
        check_choice(region, "region", get_args(Region))
        self.features, self.region = features, region

    def patches(self, seen: Observation) -> Tensor:
        """(B, N, D) float64."""
        keys = last_keys(seen)
        if self.features == "tokens" or (self.features is None and keys is None):
            return final_tokens(seen)
        if keys is None:
            raise UnsupportedModelError(
                f"features='keys' needs a model whose last attention shows its keys (fused attention over all patches),"
                f" but {type(seen.backbone.model).__name__} does not; use features='tokens' or None"
            )
        return keys

    def kept(self, seen: Observation, grid: Tensor, side: Tensor, seed: Tensor) -> Tensor:
        """The grid (B, Gh, Gw) of values and object's side (B, N); what the region leaves out is no evidence."""
        values = seen.to_grid(grid)
        if self.region == "component":
            values = torch.where(connected_region(seen.to_grid(side), seed), values, values.clamp(max=0))
        return narrow(seen, values)

    def source(self, seen: Observation) -> str:
        """Which features were grouped."""
        if self.features == "tokens":
            return "the final features"
        shown = last_keys(seen) is not None
        return "the keys of the last attention" if shown else "the final features, for the model shows no keys"


@register_explainer
class TokenCut(Grouping):
    """TokenCut (Wang et al., CVPR 2022, arXiv:2202.11539): a normalised cut of the patches::

        W_pq = 1 where cos(f_p, f_q) > tau, else eps      (D - W) x = lambda D x, the second smallest eigenvector
        object: the side of x > mean(x) or x < mean(x) that holds the largest |x|, which is the seed
        grid = +-(x - mean(x)), the sign such that the seed is positive: the object is where the grid is

    x has x' D x = 1, in float64 throughout. The map is flat where no cut is better than another, as for constant
    features. Of patches with the same |x| the first in reading order is the seed.

    Needs the final features, and the keys of the last attention where it shows them. Class-agnostic. Signed, > 0 is the
    object.

    Parameters
    ----------
    tau, eps
        Cosine above which patches belong together, and the weight between others, as in the paper.
    features, region
        As in ``Grouping``.
    """

    name = "token-cut"

    def __init__(
        self, tau: float = 0.2, eps: float = 1e-5, features: Features | None = None, region: Region = "side"
    ) -> None:
        super().__init__(features, region)
        check_inside(tau, "tau", -1, 1, or_low=True)
        check_inside(eps, "eps", 0, 1)
        self.tau, self.eps = tau, eps

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        f = F.normalize(self.patches(seen), dim=-1)  # (B, N, D)
        near = f @ f.transpose(1, 2) > self.tau
        x, _ = normalised_cut(torch.where(near, 1.0, self.eps))  # (B, N)
        x, seed = seed_positive(x)
        x = x - x.mean(dim=1, keepdim=True)
        return self.kept(seen, x, x > 0, seed)


@register_explainer
class LOST(Grouping):
    """LOST (Simeoni et al., BMVC 2021, arXiv:2109.14279): what correlates least with the rest, and what is like it::

        degree_p = number of q with f_p . f_q >= 0      seed = patch of the lowest degree
        S = those of the k patches of the lowest degrees with f_s . f_seed >= 0
        grid_q = sum_(s in S) f_q . f_s      object: grid >= 0

    Among patches of the same degree the first in reading order comes first.

    Needs the final features, and the keys of the last attention where it shows them. Class-agnostic. Signed, >= 0 is
    the object.

    Parameters
    ----------
    k
        How many patches may be seeds, 100 in the paper; at most all.
    features, region
        As in ``Grouping``.
    """

    name = "lost"

    def __init__(self, k: int = 100, features: Features | None = None, region: Region = "side") -> None:
        super().__init__(features, region)
        check_count(k, "k", 1)
        self.k = k

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        f = self.patches(seen)  # (B, N, D)
        correlation = f @ f.transpose(1, 2)  # (B, N, N)
        order = (correlation >= 0).sum(dim=-1).sort(dim=-1, stable=True).indices  # lowest degree first
        seed = order[:, 0]
        beside = correlation.gather(1, seed[:, None, None].expand(-1, 1, f.shape[1]))[:, 0]  # (B, N)
        low = torch.zeros_like(beside).scatter(1, order[:, : self.k], 1.0)
        seeds = low * (beside >= 0)
        total = torch.einsum("bs,bsq->bq", seeds, correlation)
        return self.kept(seen, total, total >= 0, seed)


@register_explainer
class PCA(Explainer):
    """First principal component of the patch tokens, as DINOv2 shows it (Oquab et al., TMLR 2024, arXiv:2304.07193)::

        X = f - mean_p f, (N, D) = U S V'      grid = +-X v_1

    f are the features that the classifier averages: of a transformer, its patch tokens after the last norm. The sign is
    such that the patches on the border of the image are negative on average, since objects seldom lie there; where the
    grid is all border, or its average is zero, the largest absolute value is positive. Flat for constant features.

    Needs the final features. Class-agnostic. Signed, > 0 is the object.
    """

    name = "pca"
    requires = frozenset({"features"})
    class_specific = False
    positive = True

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        x = final_tokens(seen)  # (B, N, D)
        scores, _ = seed_positive(first_component(x))  # (B, N)
        inside = torch.zeros(seen.grid_size, dtype=torch.bool, device=x.device)
        inside[1:-1, 1:-1] = True
        border = scores[:, ~inside.flatten()].mean(dim=1, keepdim=True)
        undecided = border.abs() <= SAME * scores.abs().amax(dim=1, keepdim=True)
        return narrow(seen, seen.to_grid(torch.where(undecided | (border < 0), scores, -scores)))

    def source(self, seen: Observation) -> str:
        return "the final features"


def last_keys(seen: Observation) -> Tensor | None:
    """Keys of the patches in the last attention, heads concatenated, (B, N, nh d) float64; None if it shows none."""
    N = seen.grid_size[0] * seen.grid_size[1]
    k = seen.calls[-1].k if seen.calls else None
    if k is None or k.shape[2] < N:
        return None
    return k[:, :, k.shape[2] - N :].detach().transpose(1, 2).flatten(2).double()


def final_tokens(seen: Observation) -> Tensor:
    """The final features less their mean over the patches, (B, N, D) float64; zeros where they are constant."""
    assert seen.features is not None
    raw = seen.features.flatten(2).transpose(1, 2)  # (B, N, D)
    tokens = raw.double()
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    rounding = 64 * torch.finfo(raw.dtype).eps * tokens.abs().amax(dim=(1, 2), keepdim=True)
    return torch.where(centred.abs().amax(dim=(1, 2), keepdim=True) <= rounding, 0.0, centred)


def seed_positive(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, N) with the sign that makes the largest absolute value positive, and its index (B,).

    Of those that are as large within rounding, as patches with the same neighbours are, it is the first.
    """
    size = x.abs()
    seed = (size >= size.amax(dim=1, keepdim=True) * (1 - SAME)).int().argmax(dim=1)
    return torch.where(x.gather(1, seed[:, None]) < 0, -x, x), seed


def narrow(seen: Observation, grid: Tensor) -> Tensor:
    """A float64 grid in the precision of maps: at least float32."""
    assert seen.features is not None
    return grid.to(seen.features.dtype)
