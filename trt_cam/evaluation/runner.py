"""One data set, one model, several methods: every figure of a published protocol, in runs that can be cut short."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trt_cam import __version__
from trt_cam.backbone import class_names, count_classes, imagenet_wnids, preprocessing, unwrap
from trt_cam.data.catalog import load_dataset
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError, UnsupportedModelError
from trt_cam.evaluation.measuring import Batches, Measure, Method, Read, Results, from_arrays
from trt_cam.explainers import Explainer, list_explainers
from trt_cam.localization import computing
from trt_cam.metrics.protocols import get_protocol, threshold_list
from trt_cam.ops._checks import check_count
from trt_cam.pipeline import bind, input_size, name_of, own_refine, place
from trt_cam.runs import Run, World, own
from trt_cam.targets import resolve_target

Progress = Callable[[int, int, int], None]
"""Told after each batch: photos done, photos in all, photos that failed."""


@dataclass
class Evaluation:
    """What every photo of a data set gave, by method.

    Attributes
    ----------
    results : by the name of a method
        ``metrics.figures``, ``metrics.search_threshold`` and ``metrics.paired`` take them.
    failures : photo's id and reason
        Photos that count for no method: unreadable, without ground truth, or a map that is not finite.
    data, methods, model
        What was evaluated, by what.
    run
        Its folder; maps are read from there.
    """

    results: dict[str, Results]
    failures: list[tuple[str, str]]
    data: DataSet
    methods: Sequence[Method]
    model: str
    run: Run
    batches: int
    kept: Any = field(default=None, repr=False)

    def parts(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """What was kept of each batch, in order; see `measuring.Measure.batch`."""
        return (self.run.read(number) for number in range(self.batches))


def evaluate(
    data: DataSet | str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    methods: Sequence[str | Explainer] = ("auto",),
    refine: str | None = "default",
    protocol: str | None = None,
    interval: float = 0.01,
    part: str | None = None,
    classes: Mapping[str, str | int] | None = None,
    size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    threads: int = 1,
    workers: int = 0,
    limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Explain every photo of a data set for its true class and compare with the ground truth.

    Parameters
    ----------
    data
        From ``load_dataset``, or its folder.
    model, size, device
        As ``localize``; photos are squashed to the model's size, as all protocols do.
    methods
        Names, or explainers with their settings; ``["all"]`` are those that fit the model.
    refine
        "default", None, "affinity" or "ncut", for all methods.
    protocol
        See ``metrics.get_protocol``; by default "pxap" for a data set with masks and "maxboxacc_v2" for one with boxes.
    interval
        Step of the thresholds, 0.01 or in some code 0.001.
    part
        "odd" or "even": only photos whose file's number is so, where a data set must serve to choose and to report.
    classes
        The model's class, index or name, of each of the data set's classes by name; found by themselves for WordNet
        ids of ImageNet, for names that the model has, and for as many classes as the model has.
    batch_size, threads
        Photos in one forward, and threads of one forward on the CPU. Either may change the last digits of a map, so
        they belong to the run; a process under ``torchrun``, which is left one thread, does what a single one does.
    workers
        Processes that read photos. Results depend on neither processes nor restarts.
    limit
        Only the first so many photos.
    out, resume
        Folder of the run, and whether to go on with one that was cut short. None: nothing is left behind.
    progress
        Called after each batch.

    Returns
    -------
    Evaluation
        Under ``torchrun`` the same in every process.

    Raises
    ------
    InputError, DatasetError, OutputError
        An option, the data set or the folder cannot be used. A broken photo is a line of ``failures``.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("limit", limit, 1)):
        if value is not None:
            check_count(value, name, least)
    data = data if isinstance(data, DataSet) else load_dataset(Path(data))
    net = place(model, own(device))
    rows = bound(methods, net, refine)
    chosen = get_protocol(protocol or ("pxap" if has_masks(data) else "maxboxacc_v2"))
    pixels = input_size(size, preprocessing(net).size)
    indices = selected(data, part, limit)
    measure = Measure(rows, data, class_indices(data, net, classes), chosen, threshold_list(interval))
    batches = Batches(data, indices, preprocessing(net), pixels, chosen, batch_size)
    identity = identity_of(measure, batches, name_of(model, net), part, interval, threads)
    world = World.current()
    kept = tempfile.TemporaryDirectory() if out is None else None
    if kept and world.size > 1:
        raise InputError("several processes need a folder that they share, got none; give out")
    run = Run(Path(kept.name if kept else os.fspath(out or "")), identity, resume=resume, world=world)
    with computing(threads):
        work(run, measure, batches, world, workers, progress)
    return collected(run, measure, batches, data, name_of(model, net), kept)


def bound(methods: Sequence[str | Explainer], net: nn.Module, refine: str | None) -> list[Method]:
    """Methods on a model, each under a name of its own; for "all" those that fit it."""
    rows: list[Method] = []
    for one in list_explainers() if "all" in methods else methods:
        try:
            explain = bind(one, net)
        except UnsupportedModelError:
            if "all" not in methods:
                raise
            continue
        own = own_refine(net, explain.explainer.name) if refine == "default" else refine
        name = name_with_settings(explain.explainer) + (f" + {own}" if own else "")
        if name in [row.name for row in rows]:
            raise InputError(f"methods must differ, got {name!r} twice")
        rows.append(Method(name, explain, own))
    if not rows:
        raise InputError("at least one method was needed, got none; see list_explainers()")
    return rows


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
    return len(data) > 0 and bool(data[0].masks)


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
    if not len(indices):
        raise DatasetError(f"at least one photo was needed, got none in {data!r}" + (f", part {part}" if part else ""))
    return indices


def class_indices(data: DataSet, net: nn.Module, classes: Mapping[str, str | int] | None) -> npt.NDArray[np.int64]:
    """The model's class for each of the data set's, (K',); -1 where it has none."""
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


def identity_of(
    measure: Measure, batches: Batches, model: str, part: str | None, interval: float, threads: int
) -> dict[str, Any]:
    """All that the results depend on."""
    net = measure.methods[0].explain.model
    return {
        "trt_cam": __version__,
        "data": of_data(measure.data, batches.indices) | {"part": part},
        "model": {"name": model, "weights": of_weights(net)},
        "methods": [[row.name, repr(row.explain.explainer), row.refine] for row in measure.methods],
        "protocol": measure.protocol.name,
        "interval": interval,
        "size": list(batches.size),
        "batch_size": batches.batch_size,
        "threads": threads,
    }


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


def work(run: Run, measure: Measure, batches: Batches, world: World, workers: int, progress: Progress | None) -> None:
    """Make this process's share of the batches that are not there yet, and wait for the others."""
    share = world.share(len(batches))
    missing = run.missing(share)
    loader: Any = torch.utils.data.DataLoader(batches, batch_size=None, sampler=missing, num_workers=workers)
    photos, failed = len(batches.indices) // world.size, 0
    done = min(photos, (len(share) - len(missing)) * batches.batch_size)
    read: list[Read]
    for number, read in zip(missing, loader, strict=True):
        arrays = measure.batch(read)
        run.write(number, arrays)
        done, failed = done + len(read), failed + len(json.loads(str(arrays["failures"])))
        if progress is not None:
            progress(done, max(photos, done), failed)
    world.wait()


def collected(run: Run, measure: Measure, batches: Batches, data: DataSet, model: str, kept: Any) -> Evaluation:
    """All batches as one."""
    results = {method.name: measure.empty() for method in measure.methods}
    failures: list[tuple[str, str]] = []
    for number in range(len(batches)):
        arrays = run.read(number)
        failures += [(data.ids[index], reason) for index, reason in json.loads(str(arrays["failures"]))]
        for index, table in enumerate(results.values()):
            table.merge(from_arrays(arrays, index, type(table)))  # type: ignore[arg-type]
    if not len(next(iter(results.values()))):
        raise DatasetError(f"no photo of {data!r} could be evaluated; the first, {failures[0][0]}: {failures[0][1]}")
    return Evaluation(results, failures, data, measure.methods, model, run, len(batches), kept)
