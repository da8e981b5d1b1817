"""Boxes for photos that have none, as labels to train on: numbered batches that resume and are shared."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trt_cam import __version__
from trt_cam.data.catalog import load_dataset
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError, InputError, OutputError
from trt_cam.evaluation import Progress, class_indices, of_data, of_weights
from trt_cam.localization import computing
from trt_cam.ops._checks import check_choice, check_count, check_range
from trt_cam.pipeline import Pipeline, own_threshold
from trt_cam.pseudolabels.formats import FORMATS
from trt_cam.pseudolabels.labelling import FORWARDS, Forwards, Line, packed
from trt_cam.pseudolabels.merging import LINES, Keep, Merge, firsts
from trt_cam.runs import Run, World, own, write_whole, writing

SUMMARY = "summary.json"
Boxes = Literal["largest", "all_external"]
Target = Literal["label", "predicted"]


@dataclass(frozen=True)
class PseudoLabels:
    """What a run made.

    Attributes
    ----------
    folder
        With ``photos.jsonl``, a line for every photo, and a folder for each format.
    photos
        All there are; each is one of the next four.
    labelled, without_box, copies, failed
        Photos with boxes; with none that is kept; with the content of one before them; that could not be used.
    boxes, classes
        How many in all, and by the name of the class.
    """

    folder: Path
    photos: int
    labelled: int
    without_box: int
    copies: int
    failed: int
    boxes: int
    classes: Mapping[str, int]

    def failures(self) -> Iterator[tuple[str, str]]:
        """Path and reason of each photo that failed."""
        with open(self.folder / LINES, encoding="ascii") as file:
            for line in map(json.loads, file):
                if "error" in line:
                    yield line["path"], line["error"]


def pseudo_label(
    data: DataSet | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module | None = None,
    method: Any = "auto",
    refine: str | None = "default",
    threshold: float | None = None,
    boxes: Boxes = "largest",
    formats: Sequence[str] = ("coco",),
    target: Target = "label",
    classes: Mapping[str, str | int] | None = None,
    min_size: float = 0,
    min_score: float = 0,
    batch_size: int = 8,
    threads: int = 1,
    workers: int = 0,
    resume: bool = False,
    device: str | torch.device | None = None,
    size: int | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> PseudoLabels:
    """Localize the object in every photo of a folder and write its box as a label.

    Parameters
    ----------
    data
        From ``load_dataset``, or its folder: photos in a folder for each class, photos alone, or any known data set.
    out
        Folder of the run, outside that of the photos.
    model, method, refine, threshold, size, device
        As ``localize``; under ``torchrun``, device "cuda" is the process's own.
    boxes : "largest" or "all_external"
        One box a photo, or one around every region.
    formats
        Of "coco", "yolo" and "voc", each a folder in ``out``; the lines of "jsonl" are always written.
    target : "label" or "predicted"
        The class to look for: the photo's own where the data has labels, or what the model predicts.
    classes
        As ``evaluate``: the model's class of each of the data's, where it cannot be found by itself.
    min_size
        Of both sides of a box: pixels, or below 1 a share of the photo's side.
    min_score : in [0, 1]
        Of the probability of the box's class.
    batch_size, threads
        Photos in one forward, and threads of it on the CPU. Both change last digits and belong to the run, which is why
        they do not depend on the machine; for more speed start more processes.
    workers
        Processes that read photos.
    resume
        Go on with a run that was cut short. Of one that is complete only the files are written, so that formats,
        min_size and min_score can be changed.
    progress
        Called after each part of the run.

    Returns
    -------
    PseudoLabels
        Under ``torchrun`` the same in every process.

    Raises
    ------
    InputError, DatasetError, OutputError
        An option, the data set or the folder cannot be used. A broken photo is a line with ``error``.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("threads", threads, 1), ("workers", workers, 0)):
        check_count(value, name, least)
    check_options(boxes, formats, target, min_size, min_score)
    data = data if isinstance(data, DataSet) else load_dataset(Path(data))
    check_places(data, Path(out), formats)
    world = World.current()
    line = Pipeline.build(model, method, own(device), refine=refine, threshold=threshold, boxes=boxes, size=size)
    check_scores(line, min_score)
    photos = Forwards(data, line, targets_of(data, line, target, classes), batch_size)
    run = Run(Path(out), identity_of(photos, line, threads), resume=resume, world=world)
    with computing(threads), run.begun():
        work(run, photos, line, world, workers, progress)
    return merged(Merge(run, photos, line, Keep(min_size, min_score)), formats, world)


def check_options(boxes: str, formats: Sequence[str], target: str, min_size: float, min_score: float) -> None:
    """Refuse words that are none of the options' and numbers out of range."""
    known = (*FORMATS, "jsonl")
    if isinstance(formats, str) or not formats or not all(one in known for one in formats):
        raise InputError(f"formats must be some of {', '.join(known)}, got {formats!r}")
    check_choice(boxes, "boxes", get_args(Boxes))
    check_choice(target, "target", get_args(Target))
    check_range(min_size, "min_size", 0)
    check_range(min_score, "min_score", 0, 1)


def check_scores(line: Pipeline, min_score: float) -> None:
    """Refuse a least probability where there is none."""
    if min_score and not line.explain.classes:
        raise InputError(f"min_score needs a model with a classifier, got {line.name}, which has none; leave it out")


def check_places(data: DataSet, out: Path, formats: Sequence[str]) -> None:
    """Refuse no photos, a folder of labels that would become a folder of photos, and photos that share a label file."""
    if not len(data):
        raise DatasetError(f"at least one photo was needed, got none in {data!r}")
    if out.resolve().is_relative_to(data.root.resolve()):
        raise InputError(f"out must lie outside the folder of the photos, {data.root}, got {out}; give another")
    if not {"yolo", "voc"} & set(formats):
        return
    stems = array("Q")
    for index in range(len(data)):
        name = data.photo_name(index)
        if not name.isprintable():
            raise InputError(f"{name!r} cannot stand in the lists of yolo and voc; rename it, or use coco")
        stem = str(PurePosixPath(name).with_suffix(""))
        stems.frombytes(hashlib.blake2b(stem.encode(), digest_size=16).digest())
    first = firsts(np.frombuffer(stems, dtype=np.uint64).reshape(-1, 2))
    for index in np.flatnonzero(first != np.arange(len(data))).tolist():
        name, other = data.photo_name(index), data.photo_name(int(first[index]))
        if name != other:
            raise InputError(f"{other} and {name} would share a label file in yolo and voc; rename one, or use coco")


def targets_of(
    data: DataSet, line: Pipeline, target: Target, classes: Mapping[str, str | int] | None
) -> npt.NDArray[np.int64] | None:
    """The class of the model to look for in each photo, -1 where it has no label; None for the predicted one."""
    labels = data.labels()
    if target == "predicted" or not (labels >= 0).any():
        return None
    try:
        known = class_indices(data, line.model, classes)
    except InputError as error:
        raise InputError(f"{error}; or look for the class that the model predicts: target='predicted'") from None
    fits = (labels >= 0) & (labels < len(known))
    return np.where(fits, known[np.where(fits, labels, 0)], -1)


def identity_of(photos: Forwards, line: Pipeline, threads: int) -> dict[str, Any]:
    """All that the lines depend on."""
    explainer, targets = line.explain.explainer, photos.targets
    fixed = own_threshold(line.model, explainer.name, line.refine) if line.threshold is None else line.threshold
    asked = hashlib.sha256(b"" if targets is None else targets.tobytes()).hexdigest()[:16]
    return {
        "trt_cam": __version__,
        "data": of_data(photos.data, np.arange(len(photos.data))),
        "model": {"name": line.name, "weights": of_weights(line.model)},
        "method": [repr(explainer), line.refine],
        "target": "predicted" if targets is None else f"label {asked}",
        "threshold": fixed,
        "boxes": line.boxes,
        "size": list(line.size),
        "batch_size": photos.batch_size,
        "forwards": FORWARDS,
        "threads": threads,
        "device": next(line.model.parameters()).device.type,
    }


def work(run: Run, photos: Forwards, line: Pipeline, world: World, workers: int, progress: Progress | None) -> None:
    """Make this process's share of the parts that are not there yet, and wait for the others."""
    share = world.share(photos.parts)
    missing = run.missing(share)
    numbers = photos.of(missing)
    loader: Any = torch.utils.data.DataLoader(photos, batch_size=None, sampler=numbers, num_workers=workers)
    count, failed, lines = photos.count(share), 0, list[Line]()
    done = count - photos.count(missing)
    for number, read in zip(numbers.tolist(), loader, strict=True):
        lines += photos.lines(read, line)
        if (number + 1) % FORWARDS and number + 1 < len(photos):
            continue
        run.write(number // FORWARDS, packed(lines))
        done, failed = done + len(lines), failed + sum("error" in one for one in lines)
        lines = []
        if progress is not None:
            progress(done, count, failed)
    world.wait()


def merged(merge: Merge, formats: Sequence[str], world: World) -> PseudoLabels:
    """The files, which process 0 writes while the others wait."""
    summary = merge.run.folder / SUMMARY
    try:
        if world.rank == 0:
            with writing(summary):
                summary.unlink(missing_ok=True)
            found = merge.write([name for name in FORMATS if name in formats])
            write_whole(summary, lambda file: file.write(json.dumps(found, indent=1).encode()))
    finally:
        world.wait()
    if not summary.exists():
        raise OutputError(f"{summary} is missing: process 0 could not write the files, its message says why")
    return PseudoLabels(merge.run.folder, **json.loads(summary.read_text(encoding="ascii")))
