"""The one interface of all methods, the registry, and what a method returns.

A method is a subclass of ``Explainer`` with a ``name``, a set ``requires`` and one function ``grid``. It holds
settings, never a model or data; ``create_explainer`` binds it to a model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import entry_points
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, class_names, count_classes, describe, unwrap
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import Observation, check_images, observe
from trt_cam.ops.boxes import Select, boxes_from_map
from trt_cam.ops.maps import Interpolation, minmax, resize
from trt_cam.refine import affinity, check_refinement, spread
from trt_cam.targets import resolve_targets

Target = Any
"""None, a class index or name, one per image (list, array, tensor), or a callable from logits (K,) to a scalar."""


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


class BoundExplainer:
    """An explainer with its model: call it with images.

    Raises
    ------
    UnsupportedModelError
        On creation, when the model cannot give what the method requires; fitting methods are named.
    """

    def __init__(self, explainer: Explainer, model: nn.Module) -> None:
        self.explainer, self.model = explainer, model
        net = unwrap(model)
        self.localizer = net if isinstance(net, TRTLocalizer) else None
        self.head = net.head if isinstance(net, TSCAMNet) else None
        self.backbone: Backbone = describe(net.backbone if isinstance(net, (TRTLocalizer, TSCAMNet)) else net)
        missing = explainer.requires - self.gives
        if missing:
            fitting = [name for name in list_explainers() if get_explainer(name).requires <= self.gives]
            raise UnsupportedModelError(
                f"explainer {explainer.name!r} needs {sorted(missing)}, but {type(net).__name__} gives only "
                f"{sorted(self.gives)}; explainers that fit it: {', '.join(fitting)}"
            )

    @property
    def gives(self) -> frozenset[str]:
        """What can be observed of the model."""
        gives = self.backbone.gives if self.head is None else self.backbone.gives - {"gradient"}
        gives = gives | ({"classifier"} if self.head is not None else set())
        return gives | ({"trt"} if self.localizer is not None else set())

    @property
    def reads_localizer(self) -> bool:
        """Whether the method reads the output of a TRT localizer run whole, not its backbone alone."""
        return self.localizer is not None and (
            "trt" in self.explainer.requires or (self.explainer.heads and self.localizer.cam is not None)
        )

    def __call__(self, images: Tensor, target: Target = None, *, refine: str | None = None) -> Explanation:
        """Explain a batch in one forward.

        Parameters
        ----------
        images : (B, 3, H, W)
            Preprocessed, on the model's device.
        target
            Class index or name, one per image, None for the predicted class, or a callable (gradient methods).
        refine
            None, or "affinity".
        """
        check_images(images)
        check_refinement(refine)
        asked = self.resolve(target, images)
        needs = self.explainer.requires | ({"middle"} if refine else set())
        if refine and "middle" not in self.backbone.gives:
            raise UnsupportedModelError(
                f"refine={refine!r} needs a model with middle layers, got {type(unwrap(self.model)).__name__}; use None"
            )
        seen = self.look(images, needs, asked)
        if asked is None:
            asked = seen.logits.argmax(dim=1) if seen.logits.shape[-1] and self.classes else None
        with torch.no_grad():
            grid = self.map(seen, asked, refine).detach()
        return Explanation(
            grid=grid,
            logits=seen.logits.detach(),
            target=asked if isinstance(asked, Tensor) else None,
            method=self.explainer.name,
            size=(images.shape[-2], images.shape[-1]),
            layer=self.backbone.layer if "gradient" in needs else None,
            row=self.backbone.row if needs & {"rows", "attention"} else None,
            source=self.explainer.source(seen),
            refine=refine,
            positive=self.explainer.positive and refine is None,
        )

    def map(self, seen: Observation, target: Any, refine: str | None) -> Tensor:
        """The explainer's map, refined if asked."""
        if refine is None:
            return self.explainer.grid(seen, target)
        weights = affinity(seen.middle, seen.grid_size)
        return self.explainer.refined(seen, target, lambda seed: spread(seed, weights))

    def look(self, images: Tensor, needs: frozenset[str], target: Any) -> Observation:
        """One forward. Of a TRT localizer, methods that need its heads run it whole, others its backbone."""
        if self.head is not None:
            seen = observe(self.backbone, images, needs | {"features"})
            assert seen.features is not None
            with torch.no_grad():
                seen.head, seen.logits = self.head, self.head.logits(seen.features)
            return seen
        if self.localizer is None:
            return observe(self.backbone, images, needs)
        if self.reads_localizer:
            return observe(self.backbone, images, needs & {"middle"}, via=self.localizer, target=target)
        seen = observe(self.backbone, images, needs)
        if "gradient" not in needs:  # a localizer ranks classes by its own branch, not by the backbone's head
            seen.logits = observe(self.backbone, images, frozenset(), via=self.localizer, target=target).logits
        return seen

    @property
    def classes(self) -> int:
        """Number of classes that can be asked for."""
        return count_classes(self.backbone.model) if self.head is None else self.head.out_channels

    def resolve(self, target: Target, images: Tensor) -> Any:
        """A target in any of its forms as (B,) indices on the images' device, None, or the callable."""
        if callable(target):
            if "gradient" not in self.explainer.requires:
                raise InputError(
                    f"a callable target needs a method that differentiates, such as grad-cam; got it for "
                    f"{self.explainer.name!r}: give a class index or name"
                )
            return target
        if target is None and not self.classes and self.explainer.class_specific:
            raise UnsupportedModelError(
                f"explainer {self.explainer.name!r} needs a class, but {type(unwrap(self.model)).__name__} has no "
                "classifier; give a callable target to grad-cam, or use raw-attention or rollout"
            )
        found = resolve_targets(target, class_names(unwrap(self.model)), self.classes, images.shape[0])
        return None if found is None else torch.as_tensor(found, device=images.device).expand(images.shape[0])

    def __repr__(self) -> str:
        return f"<{self.explainer!r} on {type(unwrap(self.model)).__name__}>"


# ----------------------------------------------------------------------------------------------------- registry

_registry: dict[str, type[Explainer]] = {}
GROUP = "trt_cam.explainers"


def register_explainer(cls: type[Explainer]) -> type[Explainer]:
    """Class decorator: make an explainer known by its ``name``.

    Raises
    ------
    InputError
        The class has no name, or the name is taken.
    """
    if not cls.name:
        raise InputError(f"an explainer needs a name, got {cls.__name__} without one; set {cls.__name__}.name")
    if _registry.get(cls.name, cls) is not cls:
        raise InputError(f"explainer name {cls.name!r} is taken by {_registry[cls.name].__name__}; choose another")
    _registry[cls.name] = cls
    return cls


def list_explainers(pattern: str = "*") -> list[str]:
    """Names of all explainers, built in or from installed packages, that match a shell pattern."""
    load_plugins()
    return sorted(name for name in _registry if fnmatch(name, pattern))


def get_explainer(name: str) -> type[Explainer]:
    """The class behind a name; near names are suggested for an unknown one."""
    load_plugins()
    if name not in _registry:
        near = difflib.get_close_matches(str(name).lower(), _registry, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(_registry))}"
        raise InputError(f"a known method was needed, got {name!r}; {hint}")
    return _registry[name]


def load_plugins() -> None:
    """Import the explainers that installed packages offer under the entry point group, once."""
    for point in entry_points(group=GROUP):
        if point.name not in _registry:
            register_explainer(point.load())


def create_explainer(method: str | type[Explainer] | Explainer, model: nn.Module, **settings: Any) -> BoundExplainer:
    """Bind a method to a model.

    Parameters
    ----------
    method
        Registry name, class, or an instance with its settings.
    model
        A timm model, a TRTLocalizer, or torchvision's VisionTransformer; wrapped or compiled or not. It is not changed.
    **settings
        Of the method.

    Returns
    -------
    BoundExplainer
        Call it: ``explain(images, target=None, refine=None) -> Explanation``.
    """
    if isinstance(method, Explainer):
        if settings:
            raise InputError(f"settings belong into the explainer itself, got an instance and {sorted(settings)}")
        return BoundExplainer(method, model)
    cls = get_explainer(method) if isinstance(method, str) else method
    if not (isinstance(cls, type) and issubclass(cls, Explainer)):
        raise InputError(f"a method name or an Explainer was needed, got {method!r}; see list_explainers()")
    try:
        explainer = cls(**settings)
    except TypeError as error:
        raise InputError(f"settings of {cls.name!r} were needed, got {sorted(settings)}: {error}") from error
    return BoundExplainer(explainer, model)
