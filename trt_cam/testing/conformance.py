"""The conformance suite: all checks, on a model or on one of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trt_cam.backbone import create_timm
from trt_cam.errors import UnsupportedModelError
from trt_cam.explainers import Explainer, create_explainer
from trt_cam.testing.checks import CHECKS, Suite
from trt_cam.testing.rules import ConformanceError

CLASSES, SIDE = 7, 64


def tiny_models() -> Iterator[tuple[str, nn.Module]]:
    """Small timm models with random weights, one of each kind: class token, average of patches, CNN."""
    plain: dict[str, Any] = {"img_size": SIDE, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": CLASSES}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "class token": ("vit_tiny_patch16_224", plain),
        "average of patches": ("vit_tiny_patch16_224", {**plain, "global_pool": "avg", "class_token": False}),
        "CNN": ("resnet10t", {"num_classes": CLASSES}),
    }
    with torch.random.fork_rng(devices=[]):
        for kind, (name, settings) in kinds.items():
            torch.manual_seed(0)
            yield kind, create_timm(name, pretrained=False, **settings).eval()


def check_explainer(
    method: str | type[Explainer] | Explainer,
    model: nn.Module | None = None,
    *,
    size: tuple[int, int] = (SIDE, SIDE),
    calls: int = 50,
    **settings: Any,
) -> list[str]:
    """Run the conformance suite; needs no test framework.

    Parameters
    ----------
    method
        Registry name, class or instance.
    model
        In eval mode, with a classifier; None for one small timm model of each kind that the method takes.
    size : (H, W)
        Pixels of the model's input.
    calls
        After how many calls memory is looked at; fewer for a costly method.
    **settings
        Of the method: small numbers for a costly one.

    Returns
    -------
    list of str
        The checks that were made, ``"kind of model: check"``.

    Raises
    ------
    ConformanceError
        A check failed; the message names it.
    UnsupportedModelError
        The method takes none of the models.
    """
    made: list[str] = []
    refused: list[str] = []
    for kind, one in tiny_models() if model is None else [(type(model).__name__, model)]:
        try:
            explain = create_explainer(method, one, **settings)
        except UnsupportedModelError as error:
            refused.append(str(error))
            continue
        suite = Suite(explain, size, calls)
        for check in CHECKS:
            name = check.__name__.replace("_", " ")
            try:
                check(suite)
            except UnsupportedModelError as error:  # by what the forward showed, so in the first check
                refused.append(str(error))
                break
            except Exception as error:
                what = error if isinstance(error, ConformanceError) else f"a map was needed, got {error!r}"
                raise ConformanceError(f"{explain.explainer.name!r} on {kind}: {name}: {what}") from error
            made.append(f"{kind}: {name}")
    if not made:
        raise UnsupportedModelError(f"a model that the method takes was needed: {'; '.join(refused)}")
    return made
