"""A method bound to a model: targets, the one forward, refinement, the result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.backbone import Backbone, class_names, count_classes, describe, unwrap
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers.base import Explainer, Explanation
from trt_cam.explainers.registry import get_explainer, list_explainers
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.observe import Observation, check_images, observe
from trt_cam.refine import affinity, check_refinement, spread
from trt_cam.targets import resolve_targets

Target = Any
"""None, a class index or name, one per image (list, array, tensor), or a callable from logits (K,) to a scalar."""


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
        logits = self.ranking(seen, images, asked)
        if asked is None and self.classes:
            asked = logits.argmax(dim=1)
        with torch.no_grad():
            grid = self.map(seen, asked, refine).detach()
        return Explanation(
            grid=grid,
            logits=logits,
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
        return observe(self.backbone, images, needs)

    def ranking(self, seen: Observation, images: Tensor, target: Any) -> Tensor:
        """Logits (B, K) that rank the classes; a localizer ranks by its own branch, not by the backbone's head."""
        if self.localizer is None or self.reads_localizer:
            return seen.logits.detach()
        target = target if isinstance(target, Tensor) else None
        return observe(self.backbone, images, frozenset(), via=self.localizer, target=target).logits.detach()

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
