"""From photos to boxes: one call, a stream, or columns of a table for the engines that spread work over machines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn

from trt_cam.data.frames import Fit
from trt_cam.data.photos import Source
from trt_cam.errors import InputError
from trt_cam.observe import check_images
from trt_cam.ops._checks import check_count
from trt_cam.ops.boxes import Select
from trt_cam.pipeline import Pipeline
from trt_cam.results import Failure as Failure
from trt_cam.results import Localization as Localization
from trt_cam.targets import resolve_targets


class Options(TypedDict, total=False):
    """What `localize` takes beside photos and model, for type checkers."""

    method: Any
    target: Any
    refine: str | None
    threshold: float | None
    boxes: Select
    fit: Fit
    size: int | tuple[int, int] | None
    device: str | torch.device | None
    batch_size: int


Model = str | os.PathLike[str] | nn.Module | None


# A string is a sequence of strings too: the first signature is meant for it.
@overload
def localize(images: Source, *, model: Model = ..., **options: Unpack[Options]) -> Localization: ...  # type: ignore[overload-overlap]
@overload
def localize(
    images: Tensor | Sequence[Source], *, model: Model = ..., **options: Unpack[Options]
) -> list[Localization]: ...
def localize(
    images: Source | Tensor | Sequence[Source],
    *,
    model: Model = None,
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
    model: Model = None,
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
    check_count(batch_size, "batch_size", 1)
    if isinstance(photos, Tensor):
        check_images(photos)
    line = Pipeline.build(model, method, device, **options)
    count = len(photos) if isinstance(photos, (Sequence, Tensor)) else None
    targets = resolve_targets(target, line.names, line.explain.classes, count)
    asked = paired(photos, targets) if isinstance(targets, list) else ((photo, targets) for photo in photos)
    return line.stream(asked, batch_size, strict=strict)


def paired(photos: Iterable[Any], targets: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Each photo with its target; how many photos a generator has is known at its end."""
    count = 0
    for count, photo in enumerate(photos, start=1):
        if count > len(targets):
            break
        yield photo, targets[count - 1]
    if count != len(targets):
        came = f"more than {len(targets)}" if count > len(targets) else f"{count}"
        raise InputError(f"target must have one entry for each photo, got {len(targets)} for {came} photos")


class BatchLocalizer:
    """Photos in, boxes out, some rows of a table at a time: for Ray Data's ``map_batches`` and ``datasets.map``.

    It holds settings and nothing else, so it pickles small; a process loads the model at its first call.

    Parameters
    ----------
    model, method, target, refine, threshold, boxes, fit, size, device
        As `localize`. A model that is given by name or folder is loaded where the work is done.
    batch_size : int
        Photos in one forward. With 1 a result does not depend on how the engine cuts the table; more are faster on a
        GPU, and neighbours then change a result's last digits.
    threads : int
        Of one forward on the CPU; another number changes last digits.
    """

    sources = ("image", "bytes", "path")
    results = ("width", "height", "boxes", "scores", "mean_heat", "label", "score", "error")

    def __init__(
        self,
        *,
        model: Model = None,
        method: Any = "auto",
        target: Any = None,
        refine: str | None = "default",
        threshold: float | None = None,
        boxes: Select = "largest",
        fit: Fit = "squash",
        size: int | tuple[int, int] | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 1,
        threads: int = 1,
    ) -> None:
        self.model, self.method, self.target, self.device = model, method, target, device
        self.options: dict[str, Any] = dict(refine=refine, threshold=threshold, boxes=boxes, fit=fit, size=size)
        self.batch_size, self.threads = batch_size, threads
        self._line: Pipeline | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_line": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Localize the object of every row.

        Parameters
        ----------
        batch
            Columns by name. Photos are in the first that is there of ``image`` (arrays, PIL images, or mappings with
            ``bytes`` or ``path``), ``bytes`` (of files) and ``path``. A column ``target`` says which class to look for
            in each, by index or name.

        Returns
        -------
        dict
            All columns but ``image`` and ``bytes``, and those of `results`: lists of (M, 4), (M,) and (M,) for
            ``boxes``, ``scores`` and ``mean_heat``, and one value a row for the others, also for ``target``, the index
            of the class. Where one is unknown it is "", -1 or NaN. A photo that failed has its reason in ``error``.

        Raises
        ------
        InputError
            There is no column of photos, one that would be written over, or a setting that cannot be used.
        """
        source = next((name for name in self.sources if name in batch), None)
        if source is None:
            raise InputError(f"a batch needs a column {', '.join(self.sources)}, got {', '.join(batch) or 'none'}")
        if taken := [name for name in self.results if name in batch]:
            raise InputError(f"column {taken[0]!r} would be written over; rename it first")
        photos = [content(one) for one in batch[source]]
        with computing(self.threads):
            line = self.line()
            asked = batch.get("target", self.target)
            targets = resolve_targets(asked, line.names, line.explain.classes, len(photos))
            each = targets if isinstance(targets, list) else [targets] * len(photos)
            found = list(line.stream(zip(photos, each, strict=True), self.batch_size, strict=False))
        kept = {name: batch[name] for name in batch if name not in ("image", "bytes")}
        return kept | columns(found)

    def line(self) -> Pipeline:
        """The pipeline of this process."""
        check_count(self.batch_size, "batch_size", 1)
        if self._line is None:
            self._line = Pipeline.build(self.model, self.method, self.device, **self.options)
        return self._line

    def features(self, before: Mapping[str, Any]) -> Any:
        """The ``features`` to give to ``datasets.map``, which would else guess them from the first rows.

        Parameters
        ----------
        before
            Of the data set.
        """
        try:
            from datasets import Features, Value
        except ImportError as error:
            raise InputError("features needs the package datasets; pip install 'trt-cam[datasets]'") from error
        types = dict.fromkeys(("width", "height", "target"), "int64") | {"score": "float32"}
        rows = {"boxes": [[Value("int64")]], "scores": [Value("float32")], "mean_heat": [Value("float32")]}
        texts = {"label": Value("string"), "error": Value("string")}
        return Features({**before, **rows, **texts, **{name: Value(kind) for name, kind in types.items()}})


def content(value: Any) -> Any:
    """A photo of a column: ``datasets`` has a mapping for one that is not decoded."""
    if not isinstance(value, Mapping):
        return value
    return value.get("bytes") or value.get("path")


def columns(found: Sequence[Localization | Failure]) -> dict[str, Any]:
    """Results as columns; a value that is not there keeps its type, since engines hold a column to one."""
    good = [one if isinstance(one, Localization) else None for one in found]
    return {
        "width": np.array([one.size[1] if one else 0 for one in good], dtype=np.int64),
        "height": np.array([one.size[0] if one else 0 for one in good], dtype=np.int64),
        "target": np.array([-1 if one is None or one.target is None else one.target for one in good], dtype=np.int64),
        "label": [(one.label if one else None) or "" for one in good],
        "score": np.array([np.nan if one is None or one.score is None else one.score for one in good], np.float32),
        "boxes": [one.boxes.tolist() if one else [] for one in good],
        "scores": [one.scores.tolist() if one else [] for one in good],
        "mean_heat": [one.mean_heat.tolist() if one else [] for one in good],
        "error": [one.error if isinstance(one, Failure) else "" for one in found],
    }


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """So many threads of torch for the duration: a process alone has all cores, one of several often a single one."""
    check_count(threads, "threads", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
