"""Several methods on one model at the cost of a few forwards: what one forward shows serves all that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trt_cam.errors import InputError
from trt_cam.explainers.base import Explanation
from trt_cam.explainers.binding import LAYERS, BoundExplainer
from trt_cam.observe import check_images

OWN = ("target_layers", "reshape_transform", "start_block")
"""Settings that change what a forward shows: a method that has one of them is observed alone."""
LOCALIZER = ("localizer",)


def explain_together(
    methods: Sequence[BoundExplainer],
    images: Tensor,
    target: Any = None,
    *,
    refine: str | None | Sequence[str | None] = None,
) -> list[Explanation]:
    """What each method says of a batch; the same as one call for each, with the options that each was bound with.

    Parameters
    ----------
    methods
        Bound to one model.
    images, target
        As for a call; one class for each image, or None for the predicted one.
    refine
        One for all methods, or one for each; None leaves a method its own.

    Returns
    -------
    list of Explanation
        In the order of the methods.

    Notes
    -----
    A forward is shared by the methods on attention, another by those on a layer's activation and gradient, a third by
    those on the gradient of attention, and one by those that read a TRT localizer whole. Methods whose settings change
    what a forward shows have one of their own, and those with ``aug_smooth`` all of theirs.
    """
    check_images(images)
    if len({id(one.model) for one in methods}) != 1:
        raise InputError(f"methods on one model were needed, got {len({id(one.model) for one in methods})} models")
    wanted = [refine] * len(methods) if refine is None or isinstance(refine, str) else list(refine)
    if len(wanted) != len(methods):
        raise InputError(f"one refinement for each of {len(methods)} methods was needed, got {len(wanted)}")
    asked = [one.resolve(target, images) for one in methods][0]
    if callable(asked) or isinstance(asked, list):
        raise InputError("classes were needed as targets of several methods, got callables; call each method")
    options = [one.options.replaced(each, None, None) for one, each in zip(methods, wanted, strict=True)]
    groups: dict[Any, list[int]] = {}
    found: dict[int, Explanation] = {}
    for place, one in enumerate(methods):
        if options[place].aug_smooth:
            found[place] = one(images, asked, refine=wanted[place])
        else:
            groups.setdefault(group(one), []).append(place)
    own: Tensor | None = None  # logits (B, K) of the model as it is
    for key, places in sorted(groups.items(), key=lambda item: item[0] != LOCALIZER):
        first = methods[places[0]]
        needs = frozenset[str]().union(*(methods[place].needs(options[place].refine) for place in places))
        seen = first.look(images, needs, asked)
        changed = first.reads_localizer and key != LOCALIZER  # another selection ranks classes otherwise
        logits = first.ranking(seen, images, asked) if own is None or changed else own
        own = own if changed else logits
        classes = logits.argmax(dim=1) if asked is None and first.classes else asked
        for place in places:
            with torch.no_grad():
                grid = methods[place].map(seen, classes, options[place].refine).detach()
            found[place] = methods[place].explanation(seen, grid, logits, classes, options[place])
    return [found[place] for place in range(len(methods))]


def group(one: BoundExplainer) -> Any:
    """Methods of one group share a forward."""
    explainer = one.explainer
    if one.reads_localizer:
        told = explainer.localizer_settings().items()
        return *LOCALIZER, *sorted((name, value) for name, value in told if value is not None and value is not True)
    if any(getattr(explainer, name, None) for name in OWN):
        return id(explainer)
    needs = explainer.requires
    return "attention gradient" if "attention gradient" in needs else "layer" if needs & LAYERS else "other"
