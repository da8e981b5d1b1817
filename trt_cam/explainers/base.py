"""A method and what it returns. ``create_explainer`` binds a method to a model.

A method is a subclass of ``Explainer`` with a ``name``, a set ``requires`` and one function ``grid``. It holds
settings, never a model or data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from trt_cam.observe import Observation
from trt_cam.ops.boxes import Select, boxes_from_map
from trt_cam.ops.maps import Interpolation, minmax, resize

Normalize = Literal["minmax", "max", "quantile", "none"]
QUANTILE = 0.995
"""Share of a map's values that ``normalize="quantile"`` leaves below 1."""


class Explainer:
    """A method that turns one observed forward into a map over patches.

    Attributes
    ----------
    name : registry name, lower case
    requires : what must be observed, in these words:
        "rows" (the query's attention row of each block), "attention" (q and k of each block), "keys" (of the last block
        alone), "attention gradient", "tokens" (input of the last block), "features" (what the classifier reads before
        pooling), "activation" and "gradient" (of the layer under explanation), "forward" (more forwards on other
        images), "replay" (forwards with the layer's output replaced), "classifier" (linear), or "trt" (trained heads)
    wants : the same, observed where the model gives it
    heads : whether a TRT localizer with a CAM branch is run whole, so that ``seen.output`` has its maps
    class_specific : whether the map depends on the target
    positive : whether only positive values count as evidence when the map is shown or thresholded
    """

    name: ClassVar[str] = ""
    requires: ClassVar[frozenset[str]] = frozenset()
    wants: ClassVar[frozenset[str]] = frozenset()
    heads: ClassVar[bool] = False
    class_specific: ClassVar[bool] = True
    positive: ClassVar[bool] = False

    def grid(self, seen: Observation, target: Any) -> Tensor:
        """The map, raw and signed.

        Parameters
        ----------
        seen
            What the forward showed.
        target : (B,) int64
            Class to explain; where the method scores logits by itself, by gradients or more forwards, also a callable
            or one per image: hand it on to ``seen.gradient`` or ``target_scores``. None for a method without classes.

        Returns
        -------
        (B, Gh, Gw)
        """
        raise NotImplementedError(f"{type(self).__name__} must define grid(seen, target)")

    def refined(self, seen: Observation, target: Any, spread: Callable[[Tensor], Tensor]) -> Tensor:
        """The map after a refinement, which by default is applied to the whole map."""
        grid = self.grid(seen, target)
        return spread(grid.relu() if self.positive else grid)

    def source(self, seen: Observation) -> str:
        """In words, what the class evidence comes from."""
        return "the model's classifier" if self.class_specific else "attention alone"

    def blocks(self, count: int) -> tuple[int, int]:
        """Which of ``count`` blocks' attention is read: from the first, and up to the second, exclusive."""
        return getattr(self, "start_block", 0), count

    def localizer_settings(self) -> dict[str, Any]:
        """What a TRT localizer is told beside the target, where it is run whole."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The settings of this method by name."""
        return dict(vars(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.settings().items())})"


@dataclass(frozen=True, eq=False)
class Explanation:
    """The maps of one batch.

    Attributes
    ----------
    grid : (B, Gh, Gw), or (B, T, Gh, Gw) for T targets per image
        Raw and signed, on the model's device; in [0, 1] after a refinement, for several layers, with ``aug_smooth``.
    logits : (B, K)
    target : (B,) or (B, T) int64, or None
        Class that was explained; None for a callable target or a model without classifier.
    method : registry name
    size : (H, W)
        Of the model's input.
    layer, row, source, refine
        Layers under explanation, attention row read, where class evidence comes from, refinement; None if not used.
    blocks : (first, stop) or None
        Range of blocks whose attention was read.
    positive : bool
        Whether negative values of ``grid`` count as no evidence.
    normalize
        How ``resize`` and ``np.asarray`` bring a map to [0, 1]: "minmax"; "max" divides by the maximum; "quantile" by
        the 0.995 quantile, larger values are cut; "none" leaves values as they are.
    """

    grid: Tensor
    logits: Tensor
    target: Tensor | None
    method: str
    size: tuple[int, int]
    layer: str | None = None
    row: str | None = None
    source: str | None = None
    refine: str | None = None
    blocks: tuple[int, int] | None = None
    positive: bool = False
    normalize: Normalize = "minmax"

    @property
    def grid_size(self) -> tuple[int, int]:
        """(Gh, Gw)."""
        return self.grid.shape[-2], self.grid.shape[-1]

    @property
    def evidence(self) -> Tensor:
        """The grid, negative values set to zero where the method says so."""
        return self.grid.relu() if self.positive else self.grid

    @property
    def flat(self) -> Tensor:
        """(B,) or (B, T) bool: maps that are constant, and therefore say nothing."""
        return minmax(self.evidence)[1]

    def resize(self, size: tuple[int, int] | None = None, mode: Interpolation = "bicubic") -> Tensor:
        """Heat (B, H, W) or (B, T, H, W) at ``size`` pixels (the input's), normalised; zeros for a flat map."""
        return normalized(self.pixels(size, mode), self.normalize)

    def pixels(self, size: tuple[int, int] | None, mode: Interpolation) -> Tensor:
        """The evidence at ``size`` pixels, as it is."""
        maps = self.evidence
        resized = resize(maps.flatten(0, -3), self.size if size is None else size, mode)
        return resized.view(*maps.shape[:-2], *resized.shape[-2:])

    def to_boxes(self, threshold: float = 0.2, *, select: Select = "largest") -> list[Tensor]:
        """Boxes (M, 4) of each map on the model's input, T after T for several targets; see ``boxes_from_map``."""
        heat = minmax(self.pixels(None, "bicubic"))[0].flatten(0, -3)
        found = boxes_from_map(heat, threshold, select=select)
        return found if isinstance(found, list) else [found]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """(B, H, W) float32 in [0, 1] at input size, bilinear: what pytorch-grad-cam returns."""
        heat = self.resize(mode="bilinear").float().cpu().numpy()
        return heat if dtype is None else heat.astype(dtype)


def normalized(maps: Tensor, how: Normalize) -> Tensor:
    """Maps (..., H, W) normalised each on its own; flat ones are zeros."""
    if how == "none":
        return maps
    if how == "minmax":
        return minmax(maps)[0]
    flat = minmax(maps)[1][..., None, None]
    values = maps.flatten(-2)
    top = values.amax(dim=-1) if how == "max" else values.quantile(QUANTILE, dim=-1)
    top = torch.where(top > 0, top, values.abs().amax(dim=-1))[..., None, None]
    scaled = maps / torch.where(flat | (top == 0), 1.0, top)
    return scaled.clamp(max=1).masked_fill(flat, 0.0)
