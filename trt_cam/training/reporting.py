"""What a training says of itself: model card, heat maps, and the figure of boxes where that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from trt_cam.data.samples import DataSet
from trt_cam.errors import InputError
from trt_cam.evaluation import evaluate
from trt_cam.evaluation.chosen import has_masks
from trt_cam.metrics import figures
from trt_cam.training.examples import Examples
from trt_cam.training.journal import MOST_PICTURES, Journal
from trt_cam.training.material import Material, Site, Ways
from trt_cam.training.settings import Settings


def card_of(
    material: Material, model: str, settings: Settings, ways: Ways, command: str | None, *, pretrained: bool
) -> dict[str, Any]:
    """What the model card says, but for results; see ``save_pretrained``."""
    examples, val, boxes = material.examples, material.val, ways.select == "boxes"
    told = f"{len(examples)} photos of {len(np.unique(examples.labels))} classes of `{where(examples.data)}`"
    by = "by MaxBoxAccV2, that is by boxes," if boxes else "by top-1 classification"
    among = f"on {len(val)} photos of {where(val.data)} that are not trained on" if val else ""
    labels = "Image labels" + ("; boxes of the validation photos chose the epoch." if boxes else " only.")
    made = ", ".join(f"{name}={value!r}" for name, value in asdict(ways).items())
    return {
        "data": f"{told}. It began from {'' if pretrained else 'new weights of '}`{model}`.",
        "datasets": [examples.data.name],
        "supervision": f"{labels} u = {settings.u:g} was set beforehand." if ways.method == "trt" else labels,
        "selection": f"Each stage's epoch was chosen {by} {among}."
        if val
        else "The last epoch of each stage was taken.",
        "command": command or f"trt_cam.train({examples.data.name!r}, {model!r}, {made})",
    }


def where(data: DataSet) -> str:
    """A data set and its split."""
    return data.name if data.split == "all" else f"{data.name} ({data.split})"


def draw(journal: Journal, examples: Examples, epoch: int, net: nn.Module, stage: str) -> None:
    """Heat maps of some photos, of different classes, as the network sees them by now."""
    _, places = np.unique(examples.labels, return_index=True)
    chosen = examples.at(places[:: -(-len(places) // MOST_PICTURES)])
    photos = [examples.data[row].path for row in chosen.rows.tolist()]
    with without_cam(net) if stage == "tpsm" else nullcontext():
        journal.pictures(epoch, net, photos, chosen.labels.tolist())


@contextmanager
def without_cam(net: Any) -> Iterator[None]:
    """TRT's first branch alone, whose map is M_T: while it is trained the other is not."""
    cam, net.cam = net.cam, None
    try:
        yield
    finally:
        net.cam = cam


def by_boxes(data: DataSet, site: Site) -> Callable[[nn.Module, int], float]:
    """MaxBoxAccV2 of a network on photos with boxes, in percent, at the best threshold for each IoU."""
    if has_masks(data) or not data.counts()["boxes"]:
        raise InputError(f"select='boxes' needs photos with boxes to choose by, got {where(data)} without")

    def score(net: nn.Module, epoch: int) -> float:
        folder = site.folder / "selection" / f"epoch_{epoch:03d}"
        if site.world.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of an epoch that was cut short
        site.world.wait()
        found = evaluate(data, model=net, refine=None, out=folder)
        (results,) = found.results.values()
        return figures(results, "best", draws=1).scores["maxboxacc_v2"].value  # type: ignore[arg-type]

    return score
