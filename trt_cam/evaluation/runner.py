"""One data set, one model, several methods: every figure of a published protocol, in runs that can be cut short."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trt_cam import __version__
from trt_cam.backbone import preprocessing
from trt_cam.data.catalog import load_dataset
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError
from trt_cam.evaluation.chosen import bound, class_indices, has_masks, of_data, of_weights, selected
from trt_cam.evaluation.measuring import Batches, Measure, Method, Read, Results, from_arrays
from trt_cam.explainers import Explainer
from trt_cam.localization import computing
from trt_cam.metrics.protocols import Protocol, get_protocol, threshold_list
from trt_cam.ops._checks import check_count
from trt_cam.pipeline import input_size, name_of, place
from trt_cam.runs import Run, World, own

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
    refused
        For methods "all": why the model cannot carry the others, by their names.
    """

    results: dict[str, Results]
    failures: list[tuple[str, str]]
    data: DataSet
    methods: Sequence[Method]
    model: str
    run: Run
    batches: int
    kept: Any = field(default=None, repr=False)
    refused: Mapping[str, str] = field(default_factory=dict)

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
        Photos in one forward, and threads of one forward on the CPU. Either may change the last digits of a map, as the
        kind of device does, so they belong to the run; a process under ``torchrun``, which is left one thread, does
        what a single one does.
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
    counts = [("batch_size", batch_size, 1), ("threads", threads, 1), ("workers", workers, 0)]
    for name, value, least in counts + ([] if limit is None else [("limit", limit, 1)]):
        check_count(value, name, least)
    data = data if isinstance(data, DataSet) else load_dataset(Path(data))
    net = place(model, own(device))
    pixels = input_size(size, preprocessing(net).size)
    rows, refused = bound(methods, net, refine, pixels)
    chosen = protocol_for(protocol or ("pxap" if has_masks(data) else "maxboxacc_v2"), pixels)
    indices = selected(data, part, limit)
    measure = Measure(rows, data, class_indices(data, net, classes), chosen, threshold_list(interval))
    batches = Batches(data, indices, preprocessing(net), pixels, chosen, batch_size)
    identity = identity_of(measure, batches, name_of(model, net), part, interval, threads)
    world = World.current()
    kept = tempfile.TemporaryDirectory() if out is None else None
    if kept and world.size > 1:
        raise InputError("several processes need a folder that they share, got none; give out")
    run = Run(Path(kept.name if kept else os.fspath(out or "")), identity, resume=resume, world=world)
    with computing(threads), run.begun():
        work(run, measure, batches, world, workers, progress)
    return replace(collected(run, measure, batches, data, name_of(model, net), kept), refused=refused)


def protocol_for(name: str, pixels: tuple[int, int]) -> Protocol:
    """A protocol; those that compare on the model's input, which is square there, on as many pixels."""
    found = get_protocol(name)
    return get_protocol(name, size=pixels[0]) if found.on_input and pixels[0] == pixels[1] else found


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
        "classes": hashlib.sha256(measure.classes.astype(np.int64).tobytes()).hexdigest()[:16],
        "protocol": measure.protocol.name,
        "interval": interval,
        "size": list(batches.size),
        "batch_size": batches.batch_size,
        "threads": threads,
        "device": measure.weights.device.type,
    }


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
