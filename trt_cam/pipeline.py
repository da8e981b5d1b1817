"""One pipeline from photos to results, all choices made: read, fit, explain in batches, threshold, map back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from trt_cam.backbone import Preprocessing, class_names, preprocessing, unwrap
from trt_cam.data.frames import Fit, Frame, fit_photo, frame_of
from trt_cam.data.photos import open_photo
from trt_cam.errors import InputError, UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.models.trt import TRTLocalizer
from trt_cam.models.tscam import TSCAMNet
from trt_cam.models.weights import EMBEDDED, load_model, own_config
from trt_cam.observe import halving
from trt_cam.ops._checks import check_choice, check_inside
from trt_cam.ops.boxes import Select, boxes_from_map
from trt_cam.refine import check_refinement
from trt_cam.results import Failure, Localization, input_heat
from trt_cam.targets import class_label

FIXED_THRESHOLD = 0.2
"""Share of a map's maximum above which a pixel is foreground, where neither model nor method has its own."""

FIXED_THRESHOLDS: dict[tuple[str, str | None], float] = {
    ("trt", None): 0.12,
    ("trt", "affinity"): 0.24,
    ("trt-free", None): 0.1,
    ("trt-free", "affinity"): 0.12,
    ("cam", None): 0.22,
    ("cam", "affinity"): 0.39,
    ("ts-cam", None): 0.22,
    ("ts-cam", "affinity"): 0.37,
    ("raw-attention", None): 0.2,
    ("raw-attention", "affinity"): 0.41,
    ("rollout", None): 0.24,
    ("rollout", "affinity"): 0.43,
}
"""The same by method and refinement: best for the embedded model on the odd photos of docs/results.md."""

_BLANK = 1.5  # grey levels of a channel up to which a photo is one colour: a grey one stored as JPEG varies by 1


@dataclass(frozen=True)
class Ready:
    """One photo on the model's input, or why it could not be read."""

    image: Tensor | None  # (3, H, W), normalised
    frame: Frame | None
    target: int | None
    path: Path | None
    source: Image.Image | None
    blank: bool = False
    error: str = ""


@dataclass(frozen=True)
class Pipeline:
    """All choices made: what turns photos into results."""

    model: nn.Module
    name: str
    explain: Any
    prepare: Preprocessing
    names: Sequence[str] | None
    size: tuple[int, int]
    refine: str | None = None
    threshold: float | None = None
    boxes: Select = "largest"
    fit: Fit = "squash"

    @classmethod
    def build(
        cls,
        model: str | os.PathLike[str] | nn.Module | None,
        method: Any,
        device: str | torch.device | None,
        *,
        refine: str | None = "default",
        threshold: float | None = None,
        boxes: Select = "largest",
        fit: Fit = "squash",
        size: int | tuple[int, int] | None = None,
    ) -> Pipeline:
        """Load the model, choose the method, and check the options once for all photos."""
        if threshold is not None:
            check_inside(threshold, "threshold", 0, 1, or_low=True)
        check_choice(boxes, "boxes", get_args(Select))
        net = place(model, device)
        prepare = preprocessing(net)
        pixels = input_size(size, prepare.size)
        check_choice(fit, "fit", get_args(Fit))
        explain = bind(method, net)
        refine = own_refine(net, explain.explainer.name) if refine == "default" else refine
        check_refinement(refine)
        return cls(net, name_of(model, net), explain, prepare, class_names(net), pixels, refine, threshold, boxes, fit)

    def stream(
        self, photos: Iterable[tuple[Any, int | None]], batch_size: int, *, strict: bool
    ) -> Iterator[Localization | Failure]:
        """Results in the order of ``photos``, one batch in memory at a time."""
        remaining = iter(photos)
        while batch := list(islice(remaining, batch_size)):
            yield from self.finish([self.read(source, target, strict=strict) for source, target in batch], strict)

    def finish(self, ready: list[Ready], strict: bool) -> Iterator[Localization | Failure]:
        """Results of one batch as it was read; those that could not be read are told in their places."""
        results = iter(self.run([one for one in ready if one.image is not None], strict))
        for one in ready:
            yield next(results) if one.image is not None else Failure(one.path, one.error)

    def read(self, source: Any, target: int | None, *, strict: bool) -> Ready:
        """One photo as the model's input; a bad one is an error, or says so where it is not ``strict``."""
        if isinstance(source, Tensor):
            height, width = int(source.shape[-2]), int(source.shape[-1])
            blank = bool((source.amax(dim=(-2, -1)) == source.amin(dim=(-2, -1))).all())
            return Ready(source, frame_of((height, width), (height, width)), target, None, self.pictured(source), blank)
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        try:
            photo = open_photo(source, at_least=self.size)
        except InputError as error:
            if strict:
                raise
            return Ready(None, None, target, path, None, error=str(error))
        pixels, frame = fit_photo(
            photo.image, self.size, self.fit, self.prepare.interpolation, photo_size=photo.size
        )  # (3, H, W)
        kept = photo.image if path is None else None
        return Ready(self.normalised(pixels), frame, target, path, kept, is_blank(photo.image))

    def normalised(self, pixels: Any) -> Tensor:
        return self.prepare.normalize(torch.from_numpy(pixels)[None])[0]

    def pictured(self, image: Tensor) -> Image.Image:
        """A preprocessed image as a picture again."""
        std, mean = torch.tensor(self.prepare.std)[:, None, None], torch.tensor(self.prepare.mean)[:, None, None]
        pixels = (image.detach().cpu().float() * std + mean).clamp(0, 1) * 255
        return Image.fromarray(pixels.round().byte().permute(1, 2, 0).contiguous().numpy())

    def run(self, ready: list[Ready], strict: bool) -> list[Localization | Failure]:
        """One forward for all; for halves of them where a GPU's memory does not suffice."""
        parts = halving(lambda start, stop: self.explained(ready[start:stop], strict), len(ready))
        return [result for part in parts for result in part]

    def explained(self, ready: list[Ready], strict: bool) -> list[Localization | Failure]:
        weights = next(self.model.parameters())
        images = torch.stack([one.image for one in ready if one.image is not None])  # (B, 3, H, W)
        asked = None if ready[0].target is None else torch.tensor([one.target for one in ready], device=weights.device)
        seen = self.explain(images.to(weights.device, weights.dtype), asked, refine=self.refine)
        grids = seen.evidence.detach().float().cpu()  # (B, Gh, Gw)
        chances = seen.logits.detach().float().softmax(dim=-1).cpu()  # (B, K)
        targets = [None] * len(ready) if seen.target is None else seen.target.tolist()
        found: list[Localization | Failure] = []
        for b, (one, grid, target) in enumerate(zip(ready, grids, targets, strict=True)):
            try:
                chance = None if target is None else chances[b, target]
                found.append(self.result(one, grid, seen.method, target, chance))
            except InputError as error:  # its map is not finite, which the maps of the others may be
                if strict:
                    raise
                found.append(Failure(one.path, f"{one.path or 'a photo'}: {error}"))
        return found

    def result(self, one: Ready, grid: Tensor, method: str, target: int | None, chance: Tensor | None) -> Localization:
        """Heat on the input, boxes there, and boxes on the photo."""
        assert one.frame is not None
        heat, flat = input_heat(grid[None], one.frame)
        threshold = own_threshold(self.model, method, self.refine) if self.threshold is None else self.threshold
        note = "the photo is blank" if one.blank else "the map is flat" if bool(flat) else ""
        if note:
            heat = torch.zeros_like(heat)
        (found,) = boxes_from_map(heat, threshold, select=self.boxes)
        inside = [float(heat[0, y0:y1, x0:x1].mean()) for x0, y0, x1, y1 in found.tolist()]
        score = None if chance is None else float(chance)
        return Localization(
            boxes=one.frame.boxes_to_photo(found.numpy()),
            scores=np.full(len(found), score or 0.0, dtype=np.float32),
            mean_heat=np.array(inside, dtype=np.float32),
            label=class_label(target, self.names),
            target=target,
            score=score,
            grid=grid.numpy(),
            frame=one.frame,
            method=method,
            model=self.name,
            refine=self.refine,
            threshold=threshold,
            note=note,
            path=one.path,
            source=one.source,
        )


def bind(method: Any, model: nn.Module) -> Any:
    """The explainer of a model; for "auto" the first that the model can carry."""
    if method != "auto":
        return create_explainer(method, model)
    net = unwrap(model)
    if isinstance(net, (TRTLocalizer, TSCAMNet)):
        return create_explainer("trt" if isinstance(net, TRTLocalizer) else "ts-cam", model)
    try:
        return create_explainer("trt-free", model)
    except UnsupportedModelError:
        return create_explainer("grad-cam", model)


def place(model: str | os.PathLike[str] | nn.Module | None, device: str | torch.device | None) -> nn.Module:
    """The model, loaded if need be and then moved; a module of the caller's is not moved."""
    net = load_model(os.fspath(model) if isinstance(model, os.PathLike) else model)
    if device is None:
        return net
    wanted = device_here(device)
    if not isinstance(model, nn.Module):
        return net.to(wanted)
    if next(net.parameters()).device != wanted:
        raise InputError(f"the model is on {next(net.parameters()).device}, not {wanted}; move it: model.to(...)")
    return net


def device_here(device: str | torch.device) -> torch.device:
    """A device as torch numbers it, or one line if this machine has none such."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ValueError) as error:
        found = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise InputError(f"device {str(device)!r} is not to be had here; available: {found}") from error


def name_of(model: str | os.PathLike[str] | nn.Module | None, net: nn.Module) -> str:
    """What results call a model: the name it was asked for by, timm's name, or its class."""
    if model is None:
        return EMBEDDED
    if not isinstance(model, nn.Module):
        return os.fspath(model)
    inner = unwrap(net)
    timms = getattr(inner, "pretrained_cfg", None) or {}
    return str(own_config(net).get("name") or timms.get("architecture") or type(inner).__name__)


def input_size(size: Any, default: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the model's input from what the caller says."""
    if size is None:
        return default
    sides = (size, size) if isinstance(size, Integral) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and 1 <= int(side) <= 8192 for side in sides):
        raise InputError(f"size must be pixels or (height, width), each from 1 to 8192, got {size!r}")
    return int(sides[0]), int(sides[1])


def own_refine(net: nn.Module, method: str) -> str | None:
    """The refinement that the configuration of a TRT or TS-CAM network asks for, which is for its own method alone."""
    inner = unwrap(net)
    own = "trt" if isinstance(inner, TRTLocalizer) else "ts-cam" if isinstance(inner, TSCAMNet) else None
    return own_config(net).get("refine") if method == own else None


def own_threshold(net: nn.Module, method: str, refine: str | None) -> float:
    """The fixed threshold of a method and refinement: the model's own, else the method's, else the common one.

    A model's configuration holds them as ``{"thresholds": {method: {"none" or refine: share}}}``.
    """
    own = own_config(net).get("thresholds", {})
    fixed = FIXED_THRESHOLDS.get((method, refine), FIXED_THRESHOLD)
    return float(own.get(method, {}).get(refine or "none", fixed))


def is_blank(photo: Image.Image) -> bool:
    """Whether a photo is one colour, so that there is nothing to find."""
    return all(high - low <= _BLANK for low, high in photo.getextrema())  # type: ignore[misc, union-attr]
