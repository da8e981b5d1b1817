"""What is evaluated: which photos, for which classes of the model, by which methods; and hashes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trt_cam.backbone import class_names, count_classes, imagenet_wnids, unwrap
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError, UnsupportedModelError
from trt_cam.evaluation.measuring import Method
from trt_cam.explainers import Explainer, list_explainers
from trt_cam.pipeline import bind, own_refine
from trt_cam.targets import resolve_target


def bound(
    methods: Sequence[str | Explainer], net: nn.Module, refine: str | None, size: tuple[int, int]
) -> tuple[list[Method], dict[str, str]]:
    """Methods on a model, each under a name of its own; for "all" those that fit it, and why others do not.

    A few refuse a model only when a map is made, so of "all" each that takes one pass makes one of noise beforehand.
    """
    if isinstance(methods, str):
        raise InputError(f"methods must be a list of names such as ['trt', 'cam'], got {methods!r}")
    rows: list[Method] = []
    refused: dict[str, str] = {}
    for one in list_explainers() if "all" in methods else methods:
        try:
            explain = bind(one, net)
            if "all" in methods and not explain.explainer.requires & {"forward", "replay"}:
                explain(noise(net, size))
        except UnsupportedModelError as error:
            if "all" not in methods:
                raise
            refused[str(one)] = str(error)
            continue
        own = own_refine(net, explain.explainer.name) if refine == "default" else refine
        name = name_with_settings(explain.explainer) + (f" + {own}" if own else "")
        if name in [row.name for row in rows]:
            raise InputError(f"methods must differ, got {name!r} twice")
        rows.append(Method(name, explain, own))
    if not rows:
        raise InputError("at least one method was needed, got none; see list_explainers()")
    return rows, refused


def noise(net: nn.Module, size: tuple[int, int]) -> Tensor:
    """One image (1, 3, H, W) to try a method on, the same in every run."""
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return images.to(next(net.parameters()))


def name_with_settings(explainer: Explainer) -> str:
    """A method's name, with those of its settings that are not the default."""
    try:
        usual = type(explainer)().settings()
    except (TypeError, InputError):  # a setting without default
        usual = {}
    own = [f"{key}={value}" for key, value in explainer.settings().items() if key not in usual or usual[key] != value]
    return explainer.name + (f" ({', '.join(own)})" if own else "")


def has_masks(data: DataSet) -> bool:
    """Whether the ground truth is pixels."""
    return data.counts()["masks"] > 0


def selected(data: DataSet, part: str | None, limit: int | None) -> npt.NDArray[np.int64]:
    """Places of the photos that are evaluated."""
    indices = np.arange(len(data))
    if part is not None:
        if part not in ("odd", "even"):
            raise InputError(f"part must be 'odd' or 'even', got {part!r}")
        stems = [Path(data.ids[index]).stem for index in range(len(data))]
        numbers = ["".join(filter(str.isdigit, stem.rsplit("_", 1)[-1])) for stem in stems]
        if not all(numbers):
            raise DatasetError(f"part={part!r} needs a number in each file's name, got {stems[numbers.index('')]!r}")
        indices = indices[np.array([int(number) % 2 for number in numbers]) == (part == "odd")]
    indices = indices[:limit]
    counts = data.counts()
    if len(data) and not counts["boxes"] + counts["masks"]:
        raise DatasetError(
            f"a data set with boxes or masks to compare with was needed, got {data!r} without; see docs/datasets.md, "
            "or use pseudo_label"
        )
    if not len(indices):
        raise DatasetError(f"at least one photo was needed, got none in {data!r}" + (f", part {part}" if part else ""))
    return indices


def class_indices(data: DataSet, net: nn.Module, classes: Mapping[str, str | int] | None) -> npt.NDArray[np.int64]:
    """The model's class for each of the data set's, (K',); all of the model's in order where classes have no names.

    Raises
    ------
    InputError
        ``classes`` lacks one, or has one that the model does not have; or it is None, and not all are found by
        themselves.
    """
    count, names = count_classes(unwrap(net)), class_names(net)
    theirs = data.classes
    if count == 0 or theirs is None:
        return np.arange(count or data.num_classes)
    if classes is not None:
        if missing := [one for one in theirs if one not in classes]:
            raise InputError(f"classes must give the model's class for each of {len(theirs)}, but {missing[0]!r} lacks")
        return np.array([resolve_target(classes[one], names, count) for one in theirs])
    wnids = {one: index for index, one in enumerate(imagenet_wnids())} if count == 1000 else {}
    if all(one in wnids for one in theirs):
        return np.array([wnids[one] for one in theirs])
    found: dict[str, int] = {}
    reason = ""
    for one in theirs:
        try:
            found[one] = resolve_target(one, names, count)
        except InputError as error:
            reason = reason or str(error)
    if len(found) == len(theirs):
        return np.array(list(found.values()))
    if not found and len(theirs) == count:  # names of another kind: the order is all there is
        return np.arange(count)
    raise InputError(
        f"the data set has {len(theirs)} classes such as {theirs[0]!r}, the model {count}: give classes, the model's "
        f"class for each by name ({reason})"
    )


def of_data(data: DataSet, indices: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What photos are evaluated: the data set, how many, and a hash of their names and their order."""
    found = hashlib.sha256()
    for index in indices.tolist():
        found.update(f"{data.ids[index]}\n".encode("utf-8", "surrogateescape"))
    return {"name": data.name, "split": data.split, "photos": len(indices), "ids": found.hexdigest()[:16]}


def of_weights(net: nn.Module) -> str:
    """A hash of a model's weights."""
    found = hashlib.sha256()
    for name, values in unwrap(net).state_dict().items():
        found.update(name.encode())
        found.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
