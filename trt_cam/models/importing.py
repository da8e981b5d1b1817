"""Checkpoint files of the TRT and TS-CAM authors' training scripts: read without unpickling code, made networks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trt_cam.backbone import Preprocessing
from trt_cam.errors import InputError, WeightsError
from trt_cam.models.hub import first_line
from trt_cam.models.official import from_official, inner_state
from trt_cam.models.recipes import build_backbone
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.ops._checks import check_range

NOT_NEEDED = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)
"""What training scripts leave beside the weights: their arguments, and the best accuracy as a number of numpy."""


class Ignored:
    """Stands in a checkpoint for a value that is not needed, whatever it is made from: nothing of it is run."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def import_checkpoint(
    path: str | Path,
    *,
    method: str = "auto",
    num_heads: int | None = None,
    u: float = 0.65,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> TRTLocalizer | TSCAMNet:
    """A network from a .pth file that the TRT or TS-CAM authors' code wrote.

    Parameters
    ----------
    path
        The file: a state dict, or a dict that has it under "state_dict" or "model" beside epoch, optimizer, args.
    method : "auto", "trt" or "ts-cam"
        Whose file it is; "auto" tells by its tensors.
    num_heads
        Attention heads, which a checkpoint does not tell; None is width / 64.
    u
        Of TRT, the share of attention to keep: the authors' 0.6 (CUB, 224), 0.65 (CUB, 384), 0.95 (ImageNet).
    classes
        Names of the K classes by index.
    size : (H, W) or None
        Of the input; None is the size it was trained at. Positions are interpolated for another one.
    mean, std
        Of its preprocessing, three numbers each; None is ImageNet's, the authors'.

    Raises
    ------
    WeightsError
        The file is damaged, is another network's, or holds objects that are no plain data.
    InputError
        An argument does not fit it.
    """
    if method not in ("auto", "trt", "ts-cam"):
        raise InputError(f"method must be auto, trt or ts-cam, got {method!r}")
    check_range(u, "u", 0)
    state = inner_state(read_checkpoint(Path(path)))
    trained = "ts-cam" if method == "auto" and not any("score_head." in name for name in state) else method
    net: Any = (
        TSCAMNet.from_official(state, num_heads=num_heads)
        if trained == "ts-cam"
        else from_official(state, num_heads=num_heads, u=u)
    )
    if classes is not None:
        if len(classes) != net.num_classes:
            raise InputError(f"{net.num_classes} class names were needed, got {len(classes)}")
        net.classes = tuple(classes)
    if size is not None:
        sized(net, size)
    net.preprocessing = normalised(net.preprocessing, mean, std)
    return net.eval()  # type: ignore[no-any-return]


def read_checkpoint(path: Path) -> Any:
    """What a .pth file holds, read by PyTorch's own unpickler, which makes tensors and plain data only.

    Of what is known to lie beside them, ``NOT_NEEDED``, nothing is made either.
    """
    if not path.is_file():
        raise WeightsError(f"a checkpoint file was needed, but there is none at {path}; check the path")
    try:
        ignoring = torch.serialization.safe_globals([(Ignored, name) for name in NOT_NEEDED])
        with ignoring, warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise WeightsError(
                f"a checkpoint of tensors and plain data was needed, but {path} holds a {found[1]}, and to make one "
                "could run any code; if you trust the file, load it with torch and save its state dict alone"
            ) from error
        raise WeightsError(
            f"a checkpoint that torch.save wrote was needed at {path}, but reading it failed ({reason(error)}); "
            "fetch it again"
        ) from error


def reason(error: Exception) -> str:
    """Why a file cannot be read, without torch's advice to read it unsafely."""
    return first_line(ValueError(str(error).rpartition("WeightsUnpickler error:")[2]))


def sized(net: Any, size: tuple[int, int]) -> None:
    """Let a network take inputs of another size than it was trained at."""
    old, recipe = net.backbone, net.backbone.recipe
    patch = recipe["settings"]["patch_size"]
    if len(size) != 2 or any(not isinstance(side, int) or side < patch or side % patch for side in size):
        raise InputError(f"a size (H, W) of multiples of the patch, {patch}, was needed, got {tuple(size)}")
    if tuple(size) != net.preprocessing.size:
        settings = {**recipe["settings"], "dynamic_img_size": True}
        net.backbone = build_backbone({"builder": "vit", "settings": settings}, old.num_classes)
        net.backbone.load_state_dict(old.state_dict())
        net.preprocessing = replace(net.preprocessing, size=tuple(size))


def normalised(prepared: Preprocessing, mean: Any, std: Any) -> Preprocessing:
    """Other mean and std, checked."""
    given = {name: tuple(map(float, value)) for name, value in (("mean", mean), ("std", std)) if value is not None}
    for name, values in given.items():
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise InputError(f"{name} must be three numbers, of RGB in [0, 1], got {list(values)}")
    return replace(prepared, **given)  # type: ignore[arg-type]
