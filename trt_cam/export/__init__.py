"""A model with its method as one ONNX file: photos in, logits and heat out.

The pass that explains is traced as it stands, hooks and all, so the file holds no second version of any formula.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from trt_cam.data.frames import RESAMPLING
from trt_cam.data.photos import open_photo
from trt_cam.errors import InputError, OutputError
from trt_cam.export.files import described, differences, halve, name_axes
from trt_cam.export.graph import Explaining, check_fit, traced
from trt_cam.observe.quiet import eval_mode
from trt_cam.ops._checks import check_count
from trt_cam.pipeline import Pipeline
from trt_cam.runs import write_whole


@dataclass(frozen=True)
class Exported:
    """An ONNX file.

    Attributes
    ----------
    path, bytes
        Where it is, and its size.
    logits, heat : float
        Largest differences from PyTorch's on the photo of this package, as onnxruntime runs the file.
    """

    path: Path
    bytes: int
    logits: float
    heat: float


def export_onnx(
    model: str | os.PathLike[str] | nn.Module | None,
    out: str | os.PathLike[str],
    *,
    method: Any = "auto",
    refine: str | None = "default",
    threshold: float | None = None,
    size: int | tuple[int, int] | None = None,
    batch: int | Literal["dynamic"] = "dynamic",
    half: bool = False,
) -> Exported:
    """Write a model with its method as an ONNX file.

    The file's input ``photo`` is (B, H, W, 3) uint8 RGB, resized to H by W pixels; preprocessing is inside. Its outputs
    are ``logits`` (B, K) and ``heat`` (B, H, W) in [0, 1], what ``localize`` makes its boxes of. Where the heat depends
    on a class, ``target``, int64, (1,) or (B,), may be given: below 0, its default, the predicted class is explained.
    Metadata: classes, threshold, method, refine, interpolation, model.

    Parameters
    ----------
    model, method, refine, threshold, size
        As `localize`: with the same words the same result.
    out
        The file; its folder must be there.
    batch
        Photos at a time, or "dynamic" for any number.
    half
        Store weights as float16, for half of the size; the arithmetic stays in float32.

    Raises
    ------
    UnsupportedModelError
        The method needs gradients or many passes, or the model does what ONNX has no word for.
    InputError
        An argument cannot be used, or onnx is not installed.
    OutputError
        The file cannot be written.
    """
    check_installed()
    if batch != "dynamic":
        check_count(batch, "batch", 1)
    path = check_place(Path(out))
    line = Pipeline.build(model, method, None, refine=refine, threshold=threshold, size=size)
    check_fit(line)
    graph, photo = Explaining(line), bundled_photo(line)
    with eval_mode(graph.net), torch.no_grad():
        expected = graph(photo)  # what cannot be run is said here, as localize says it
        made = traced(graph, photo, batch)
    name_axes(made, batch)
    if half:
        halve(made)
    for name, text in described(line).items():
        made.metadata_props.add(key=name, value=text)
    content = made.SerializeToString()
    logits, heat = differences(content, photo, expected, 1 if batch == "dynamic" else batch)
    put(path, content)
    return Exported(path, len(content), logits, heat)


def check_installed() -> None:
    """Say which extra is needed, or that torch is too old: 2.6 writes files that do not run."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7):
        raise InputError(f"export needs torch 2.7 or newer, got {torch.__version__}; pip install -U torch")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        missing = (error.name or "onnx").partition(".")[0]
        raise InputError(f"export needs {missing}; pip install 'trt-cam[onnx]'") from error


def check_place(path: Path) -> Path:
    """Say before the work that a file cannot be written."""
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"a file in a folder that is there was needed, got {path}; make the folder, or name a file")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write to {path.parent} (no permission); give another place")
    return path


def put(path: Path, content: bytes) -> None:
    """Write the file whole, or say why not."""
    try:
        write_whole(path, lambda file: file.write(content))
    except OutputError as error:
        raise OutputError(f"cannot write {path} ({error.__cause__}); make room or give another place") from error


def bundled_photo(line: Pipeline) -> Tensor:
    """The photo of this package on the model's input, (1, H, W, 3) uint8."""
    photo = open_photo(Path(__file__).parent.parent / "assets" / "coffee.jpg", at_least=line.size).image
    height, width = line.size
    pixels = np.array(photo.resize((width, height), RESAMPLING[line.prepare.interpolation]))
    return torch.from_numpy(pixels)[None].to(next(line.model.parameters()).device)
