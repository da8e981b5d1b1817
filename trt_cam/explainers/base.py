"""A method and what it returns. ``create_explainer`` binds a method to a model.

A method is a subclass of ``Explainer`` with a ``name``, a set ``requires`` and one function ``grid``. It holds
settings, never a model or data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
from torch import Tensor

from trt_cam.observe import Observation
from trt_cam.ops.boxes import Select, boxes_from_map
from trt_cam.ops.maps import Interpolation, minmax, resize


class Explainer:
    """A method that turns one observed forward into a map over patches.

    Attributes
    ----------
    name : registry name, lower case
    requires : what must be observed: "rows", "attention", "tokens", "features", "gradient", "classifier", or "trt"
    heads : whether a TRT localizer with a CAM branch is run whole, so that ``seen.output`` has its maps
    class_specific : whether the map depends on the target
    positive : whether only positive values count as evidence when the map is shown or thresholded
    """

    name: ClassVar[str] = ""
    requires: ClassVar[frozenset[str]] = frozenset()
    heads: ClassVar[bool] = False
    class_specific: ClassVar[bool] = True
    positive: ClassVar[bool] = False

    def grid(self, seen: Observation, target: Tensor) -> Tensor:
        """The map, raw and signed.

        Parameters
        ----------
        seen
            What the forward showed.
        target : (B,) int64
            Class to explain; a callable where the caller gave one and the method differentiates.

        Returns
        -------
        (B, Gh, Gw)
        """
        raise NotImplementedError(f"{type(self).__name__} must define grid(seen, target)")

    def refined(self, seen: Observation, target: Tensor, spread: Callable[[Tensor], Tensor]) -> Tensor:
        """The map after a refinement, which by default is applied to the whole map."""
        grid = self.grid(seen, target)
        return spread(grid.relu() if self.positive else grid)

    def source(self, seen: Observation) -> str:
        """In words, what the class evidence comes from."""
        return "the model's classifier" if self.class_specific else "attention alone"

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
    grid : (B, Gh, Gw)
        Raw and signed, on the model's device; in [0, 1] after a refinement.
    logits : (B, K)
    target : (B,) int64, or None
        Class that was explained; None for a callable target or a model without classifier.
    method : registry name
    size : (H, W)
        Of the model's input.
    layer, row, source, refine
        Layer differentiated, attention row read, where class evidence comes from, refinement; None if not used.
    positive : bool
        Whether negative values of ``grid`` count as no evidence.
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
    positive: bool = False

    @property
    def evidence(self) -> Tensor:
        """(B, Gh, Gw): the grid, negative values set to zero where the method says so."""
        return self.grid.relu() if self.positive else self.grid

    @property
    def flat(self) -> Tensor:
        """(B,) bool: maps that are constant, and therefore say nothing."""
        return minmax(self.evidence)[1]

    def resize(self, size: tuple[int, int] | None = None, mode: Interpolation = "bicubic") -> Tensor:
        """Heat (B, H, W) in [0, 1] at ``size`` pixels, the input's by default; zeros for a flat map."""
        return minmax(resize(self.evidence, self.size if size is None else size, mode))[0]

    def to_boxes(self, threshold: float = 0.2, *, select: Select = "largest") -> list[Tensor]:
        """Boxes of each image on the model's input; see ``boxes_from_map``."""
        found = boxes_from_map(self.resize(), threshold, select=select)
        return found if isinstance(found, list) else [found]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """(B, H, W) float32 in [0, 1] at input size, bilinear: what pytorch-grad-cam returns."""
        heat = self.resize(mode="bilinear").float().cpu().numpy()
        return heat if dtype is None else heat.astype(dtype)
