"""A method bound to a model: targets, the one forward, refinement, the result."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, class_names, count_classes, describe, unwrap
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers.asked import Asked, Options, refuse_callables, resolve_asked
from trt_cam.explainers.base import Explainer, Explanation, Normalize
from trt_cam.explainers.registry import get_explainer, list_explainers
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import Observation, check_images, forward, observe, resolve_layers
from trt_cam.ops.maps import minmax, resize
from trt_cam.refine import refinement, spread

LAYERS = frozenset({"activation", "gradient"})
SWEEPS = frozenset({"attention", "attention gradient"})
ATTENTION = SWEEPS | {"rows"}
SCORING = frozenset({"gradient", "attention gradient", "forward", "replay"})
"""What a method requires that scores logits by itself, and so takes callable targets."""


class BoundExplainer:
    """An explainer with its model: call it with images.

    Parameters
    ----------
    explainer, model
        A method with its settings, and the model that it reads.
    **options
        Defaults for the options of a call: ``refine``, ``aug_smooth``, ``normalize``.

    Raises
    ------
    UnsupportedModelError
        On creation, when the model cannot give what the method requires; fitting methods are named.
    """

    def __init__(self, explainer: Explainer, model: nn.Module, **options: Any) -> None:
        self.explainer, self.model = explainer, model
        self.options = Options(**options)
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
        if explainer.requires & LAYERS:
            resolve_layers(self.backbone, self.target_layers)

    @property
    def gives(self) -> frozenset[str]:
        """What can be observed of the model."""
        gives = self.backbone.gives
        if self.head is not None:
            gives = (gives - {"gradient", "attention gradient", "replay"}) | {"classifier"}
        return gives | ({"trt"} if self.localizer is not None else set())

    @property
    def target_layers(self) -> Any:
        """The layers that the method's settings name, if any."""
        return getattr(self.explainer, "target_layers", None)

    @property
    def reads_localizer(self) -> bool:
        """Whether the method reads the output of a TRT localizer run whole, not its backbone alone."""
        return self.localizer is not None and (
            "trt" in self.explainer.requires or (self.explainer.heads and self.localizer.cam is not None)
        )

    @property
    def has_maps_of_all_targets(self) -> bool:
        """Whether one observation holds the maps of several targets of an image: a localizer's CAM branch made them."""
        return self.reads_localizer and self.localizer is not None and self.localizer.cam is not None

    def __call__(
        self,
        images: Tensor,
        target: Asked = None,
        *,
        targets: Asked = None,
        refine: str | None = None,
        aug_smooth: bool | None = None,
        normalize: Normalize | None = None,
    ) -> Explanation:
        """Explain a batch in one forward.

        Parameters
        ----------
        images : (B, 3, H, W)
            Preprocessed, on the model's device, in its precision.
        target
            Class index or name; one per image, or several per image as (B, T); None for the predicted class; for
            methods that score logits by themselves also a callable from an image's logits (K,) to a scalar, or B of it.
        targets
            The same, by the name that pytorch-grad-cam gives it.
        refine
            None, "affinity" or "ncut".
        aug_smooth
            Mean of the maps in [0, 1] of six inputs: plain and mirrored, each times 0.9, 1 and 1.1; six forwards more.
        normalize
            How the result's heat is brought to [0, 1]: "minmax", "max", "quantile" or "none"; see ``Explanation``.
            None is "minmax", and "none" with ``aug_smooth``, whose mean is in [0, 1] already.
        """
        check_images(images)
        options = self.options.replaced(refine, aug_smooth, normalize)
        if target is not None and targets is not None:
            raise InputError("one of target and targets was needed, got both; they mean the same")
        asked = self.resolve(target if targets is None else targets, images)
        needs = self.needs(options.refine)
        seen = self.look(images, needs, asked)
        logits = self.ranking(seen, images, asked)
        if asked is None and self.classes:
            asked = logits.argmax(dim=1)
        with torch.no_grad():
            grid = (
                self.smoothed(images, needs, asked, options.refine)
                if options.aug_smooth
                else self.map(seen, asked, options.refine).detach()
            )
        return self.explanation(seen, grid, logits, asked, options)

    def explanation(self, seen: Observation, grid: Tensor, logits: Tensor, asked: Any, options: Options) -> Explanation:
        """A map (B, Gh, Gw) with all that was read for it."""
        attention, requires = bool(self.needs(options.refine) & ATTENTION), self.explainer.requires
        of_blocks = attention and (self.backbone.pool is None or bool(requires & SWEEPS))  # else of the pool alone
        layers = seen.layers if requires & LAYERS else ()
        return Explanation(
            grid=grid,
            logits=logits,
            target=asked if isinstance(asked, Tensor) else None,
            method=self.explainer.name,
            size=(seen.images.shape[-2], seen.images.shape[-1]),
            layer=", ".join(layers) or None,
            row=self.backbone.row if attention else None,
            source=self.explainer.source(seen),
            refine=options.refine,
            blocks=self.explainer.blocks(len(self.backbone.attentions)) if of_blocks else None,
            positive=self.explainer.positive and not (options.refine or options.aug_smooth or len(layers) > 1),
            normalize=options.normalize or ("none" if options.aug_smooth else "minmax"),
        )

    def needs(self, refine: str | None) -> frozenset[str]:
        """What a forward must show for the method and a refinement."""
        if refine and "middle" not in self.backbone.gives:
            raise UnsupportedModelError(
                f"refine={refine!r} needs a model with middle layers, got {type(unwrap(self.model)).__name__}; use None"
            )
        explainer = self.explainer
        return explainer.requires | (explainer.wants & self.gives) | ({"middle"} if refine else set())

    def map(self, seen: Observation, target: Any, refine: str | None) -> Tensor:
        """The explainer's map of one observation, refined if asked: (B, Gh, Gw), or (B, T, Gh, Gw) for (B, T) targets.

        For several layers it is the mean of their maps in [0, 1], brought to the finest grid, as in pytorch-grad-cam.
        """
        if isinstance(target, Tensor) and target.ndim == 2 and not self.has_maps_of_all_targets:
            return torch.stack([self.map(seen, one, refine) for one in target.unbind(1)], dim=1)
        if len(seen.layers) < 2:
            return self.layer_map(seen, target, refine)
        grids = []
        for layer in seen.layers:
            seen.layer = layer
            grid = self.layer_map(seen, target, refine)
            grids.append(minmax(grid.relu() if self.explainer.positive else grid)[0])
        size = max((tuple(grid.shape[-2:]) for grid in grids), key=lambda sides: sides[0] * sides[1])
        return torch.stack(
            [grid if grid.shape[-2:] == size else resize(grid, size, "bilinear") for grid in grids]
        ).mean(0)

    def layer_map(self, seen: Observation, target: Any, refine: str | None) -> Tensor:
        """The same for one layer."""
        if refine is None:
            return self.explainer.grid(seen, target)
        weights = refinement(refine, seen.middle, seen.grid_size)

        def spreading(seed: Tensor) -> Tensor:
            maps = seed.flatten(0, -3)  # (B or B T, Gh, Gw)
            maps = maps if maps.shape[-2:] == seen.grid_size else resize(maps, seen.grid_size, "bilinear")
            each = weights if seed.ndim == 3 else weights.repeat_interleave(seed.shape[1], dim=0)
            return spread(maps, each).view(*seed.shape[:-2], *seen.grid_size)

        return self.explainer.refined(seen, target, spreading)

    def smoothed(self, images: Tensor, needs: frozenset[str], target: Any, refine: str | None) -> Tensor:
        """Mean of the maps under the six augmentations of pytorch-grad-cam's ``aug_smooth``.

        Each is stretched so that it is in [0, 1] at the input's size, where pytorch-grad-cam averages.
        """
        total: Any = 0
        for mirrored, factor in product((False, True), (0.9, 1.0, 1.1)):
            seen = self.look((images.flip(-1) if mirrored else images) * factor, needs, target)
            grid = self.map(seen, target, refine).detach()
            grid = grid.relu() if self.explainer.positive else grid
            heat = resize(grid.flatten(0, -3), images.shape[-2:], "bilinear").view(*grid.shape[:-2], -1)
            low, high, flat = heat.amin(dim=-1), heat.amax(dim=-1), minmax(grid)[1]
            span = (high - low).masked_fill(flat, torch.inf)
            grid = (grid - low[..., None, None]) / span[..., None, None]
            total = total + (grid.flip(-1) if mirrored else grid)
        return total / 6

    def look(self, images: Tensor, needs: frozenset[str], target: Any) -> Observation:
        """One forward. Of a TRT localizer, methods that need its heads run it whole, others its backbone."""
        if self.reads_localizer:
            told = self.explainer.localizer_settings()
            return observe(self.backbone, images, needs & {"middle"}, via=self.localizer, target=target, **told)
        reshape = getattr(self.explainer, "reshape_transform", None)
        needs = needs | ({"features"} if self.head is not None else set())
        start = getattr(self.explainer, "start_block", 0)
        seen = observe(
            self.backbone, images, needs, target_layers=self.target_layers, reshape=reshape, start_block=start
        )
        seen.net = self.backbone.model
        if self.head is not None:
            assert seen.features is not None
            with torch.no_grad():
                seen.net, seen.head, seen.logits = unwrap(self.model), self.head, self.head.logits(seen.features)
        return seen

    def ranking(self, seen: Observation, images: Tensor, target: Any) -> Tensor:
        """Logits (B, K) that rank the classes; a localizer ranks by its own branch, not by the backbone's head."""
        if self.localizer is None or self.reads_localizer:
            return seen.logits.detach()
        target = target if isinstance(target, Tensor) else None
        return observe(self.backbone, images, frozenset(), via=self.localizer, target=target).logits.detach()

    def rank(self, images: Tensor) -> Tensor:
        """Logits (n, K) that rank the classes of images (n, 3, H, W), a bounded number at a time."""
        return forward(unwrap(self.model), images)

    @property
    def classes(self) -> int:
        """Number of classes that can be asked for."""
        return count_classes(self.backbone.model) if self.head is None else self.head.out_channels

    def resolve(self, target: Asked, images: Tensor) -> Any:
        """A target in any of its forms as (B,) or (B, T) indices on the images' device, None, or callables."""
        if target is None and not self.classes and self.explainer.class_specific:
            raise UnsupportedModelError(
                f"explainer {self.explainer.name!r} needs a class, but {type(unwrap(self.model)).__name__} has no "
                "classifier; give a callable target to grad-cam, or use raw-attention or rollout"
            )
        if not self.explainer.requires & SCORING:
            refuse_callables(target, self.explainer.name)
        return resolve_asked(target, class_names(unwrap(self.model)), self.classes, images)

    def __repr__(self) -> str:
        return f"<{self.explainer!r} on {type(unwrap(self.model)).__name__}>"


def create_explainer(method: str | type[Explainer] | Explainer, model: nn.Module, **settings: Any) -> BoundExplainer:
    """Bind a method to a model.

    Parameters
    ----------
    method
        Registry name, class, or an instance with its settings.
    model
        A timm model, a TRTLocalizer, or torchvision's VisionTransformer; wrapped or compiled or not. It is not changed.
    **settings
        Of the method, and defaults of a call's options: ``refine``, ``aug_smooth``, ``normalize``.

    Returns
    -------
    BoundExplainer
        Call it: ``explain(images, target=None, refine=None) -> Explanation``.
    """
    options = {field.name: settings.pop(field.name) for field in fields(Options) if field.name in settings}
    if isinstance(method, Explainer):
        if settings:
            raise InputError(f"settings belong into the explainer itself, got an instance and {sorted(settings)}")
        return BoundExplainer(method, model, **options)
    cls = get_explainer(method) if isinstance(method, str) else method
    if not (isinstance(cls, type) and issubclass(cls, Explainer)):
        raise InputError(f"a method name or an Explainer was needed, got {method!r}; see list_explainers()")
    try:
        explainer = cls(**settings)
    except TypeError as error:
        raise InputError(f"settings of {cls.name!r} were needed, got {sorted(settings)}: {error}") from error
    return BoundExplainer(explainer, model, **options)
