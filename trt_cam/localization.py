"""From photos to boxes: read, fit to the model, explain, refine, threshold, and back to the photo's pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from trt_cam.data.frames import Fit
from trt_cam.data.photos import Source
from trt_cam.errors import InputError
from trt_cam.ops.boxes import Select
from trt_cam.pipeline import Pipeline, check_tensor
from trt_cam.results import Failure as Failure
from trt_cam.results import Localization as Localization
from trt_cam.targets import resolve_targets


def localize(
    images: Source | Tensor | Sequence[Source],
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    method: Any = "auto",
    target: Any = None,
    refine: str | None = "default",
    threshold: float | None = None,
    boxes: Select = "largest",
    fit: Fit = "squash",
    size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
) -> Localization | list[Localization]:
    """Find an object in a photo: its box, its heat map, its class.

    Parameters
    ----------
    images : a photo, a list of photos, or a preprocessed (B, 3, H, W) tensor
        A photo is a path, the bytes of a file, a PIL image or an (H, W, 3) uint8 RGB array.
    model : None, name, folder or module
        None is the model inside the package; a name is one of timm's or "hf-hub:..."; a folder is a saved one.
    method : name of an explainer, or "auto"
        "auto" takes ``trt`` for a model with TRT heads, else ``trt-free``, else ``grad-cam``; the result says which.
    target : None, class index, class name, or one of them per photo
        None is the class that the model predicts.
    refine : "default", "affinity", "ncut" or None
        "default" is what a TRT model's configuration says of its own method, and None for everything else.
    threshold : in [0, 1)
        Share of the maximum above which a pixel belongs to the object; None is the model's own for this method.
    boxes : "largest", "all_external" or "all"
        As ``select`` of `boxes_from_map`.
    fit : "squash", "pad" or "crop"
        How a photo gets the shape of the model's input.
    size : pixels, (H, W), or None for the model's own
        Of the model's input.
    device
        Where a model that is loaded here runs; a module given as ``model`` runs where it is.
    batch_size
        Photos in one forward.

    Returns
    -------
    One Localization for one photo, a list of them for a list or a tensor

    Raises
    ------
    InputError
        A photo or an option cannot be used; `iter_localize` goes on with the other photos instead.
    """
    single = not isinstance(images, (Tensor, Sequence)) or isinstance(images, (str, bytes))
    photos: Any = [images] if single else images
    options = dict(method=method, target=target, refine=refine, threshold=threshold, boxes=boxes, fit=fit, size=size)
    found = iter_localize(photos, model=model, device=device, batch_size=batch_size, **options, strict=True)
    results = [result for result in found if isinstance(result, Localization)]
    return results[0] if single else results


def iter_localize(
    photos: Iterable[Source] | Tensor,
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    method: Any = "auto",
    target: Any = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    strict: bool = False,
    **options: Any,
) -> Iterator[Localization | Failure]:
    """Like `localize`, for any number of photos: one result after the other, in order, in bounded memory.

    What is wrong with the options is raised here; a photo that cannot be read becomes a `Failure` in its place, or
    an error with ``strict``.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be an integer of at least 1; got {batch_size!r}")
    if isinstance(photos, Tensor):
        check_tensor(photos)
    line = Pipeline.build(model, method, device, **options)
    count = len(photos) if isinstance(photos, (Sequence, Tensor)) else None
    targets = resolve_targets(target, line.names, line.explain.classes, count)
    each = iter(targets) if isinstance(targets, list) else repeat(targets)
    return line.stream(zip(photos, each, strict=False), batch_size, strict=strict)
