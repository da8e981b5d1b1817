"""From labelled photos and a model's name to a folder with a trained network and all that led to it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trt_cam import __version__
from trt_cam.data.samples import DataSet
from trt_cam.evaluation import Progress
from trt_cam.evaluation.chosen import of_data, of_weights
from trt_cam.localization import computing
from trt_cam.models.weights import check_recipe, full_config, load_model, save_pretrained
from trt_cam.pipeline import name_of
from trt_cam.runs import RECORD, alone, claim
from trt_cam.training.checkpoints import Checkpoints
from trt_cam.training.examples import Examples
from trt_cam.training.journal import Journal
from trt_cam.training.loop import Loop
from trt_cam.training.material import Material, Site, Source, Ways, batches_of, check_options, gathered
from trt_cam.training.processes import Silent, join
from trt_cam.training.reporting import by_boxes, card_of, draw
from trt_cam.training.settings import Select, Settings, Sharing, settings_for

LOG = logging.getLogger(__name__)
MODEL = "model"
"""Folder of the trained network, below that of its run."""


@dataclass
class Trained:
    """What a training left.

    Attributes
    ----------
    folder
        Of the run; the network is in ``folder / "model"``, for ``localize(model=...)``.
    metrics
        By stage: ``epoch`` that was chosen, ``score`` that it was chosen by, and its figures on the validation photos.
    model
        The network, in eval mode, on the CPU.
    """

    folder: Path
    metrics: dict[str, dict[str, float]]
    model: nn.Module


def train(
    data: DataSet | str | os.PathLike[str],
    model: str | os.PathLike[str] | nn.Module,
    method: str = "trt",
    *,
    out: str | os.PathLike[str],
    preset: str | Settings | None = None,
    freeze_backbone: bool = False,
    joint: bool = False,
    kind: str = "auto",
    split: str | None = None,
    classes: str | Mapping[str, str | int] | None = None,
    val: DataSet | str | os.PathLike[str] | None = None,
    val_split: str | None = None,
    select: Select = "classification",
    pretrained: bool = True,
    sharing: Sharing = "ddp",
    device: str | torch.device | None = None,
    threads: int | None = None,
    workers: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
    command: str | None = None,
    say: Callable[[str], None] = LOG.warning,
    progress: Progress | None = None,
    **changes: Any,
) -> Trained:
    """Train a localizer from image labels alone.

    Parameters
    ----------
    data, kind, split
        Labelled photos: a data set, or a folder with one of a known layout or with a folder for each class; of several
        splits "train" is taken.
    model
        A timm name, a timm model, or a network that was trained before, see `networks.network`. It is not changed.
    method : "trt", "ts-cam" or "cam"
        TRT in two stages: backbone and TPSM by their own loss, then the CAM branch alone. TS-CAM and CAM in one.
    out
        Folder of the run: empty, or with ``resume`` holding this very run.
    preset
        A name of `settings.PRESETS` or settings of your own; None is "quick" with a frozen backbone, "full" without.
    freeze_backbone
        Run the backbone once over the photos and train only what is new, with copies of the last block.
    joint
        One stage with the sum of both losses (the paper's Eq. 2) in place of two.
    classes
        None: the data's classes are the model's, whose classifier is drawn anew if they are not as many. "model", or
        the model's class of each of the data's by name: the model keeps its classes and its classifier.
    val, val_split
        Photos to choose the epoch by; None splits ``val_share`` of the training photos off.
    select : "classification" or "boxes"
        What the epoch is chosen by. Boxes are more than labels: they must be asked for, and be those of ``val``.
    pretrained
        Whether a timm name means its published weights, or new ones.
    sharing : "ddp" or "fsdp"
        With several processes: whether each holds the whole network, or a part of it, for large ones.
    device, threads, workers
        Where to train (None: a GPU if there is one), threads of one process on the CPU, processes that read photos.
    resume
        Go on with a run that was cut short; on one CPU process it then ends as if it had not been.
    tensorboard
        Write its files too.
    command
        What the model card says that the network was made by.
    say, progress
        Told in a line of what deserves it, and of every update.
    **changes
        Fields of `settings.Settings` and, for both stages, of `settings.Stage`, in place of the preset's:
        ``epochs=(8, 4)``, ``lr=1e-4``, ``batch=32``, ...

    Returns
    -------
    Trained
        Under ``torchrun`` the same in every process.

    Raises
    ------
    InputError, DatasetError
        An option, the data or the model cannot be used; said before anything is trained where that can be known.
    TrtCamError
        The loss is not finite; the last good checkpoint is kept.
    OutputError
        The folder cannot be written; what is done is kept.
    """
    settings = settings_for(preset or ("quick" if freeze_backbone else "full"), changes)
    ways = Ways(method, freeze_backbone, joint, select, sharing)
    source = Source(data, model, kind, split, classes, val, val_split, pretrained)
    world, place = join(device)
    check_options(settings, ways, world, source)
    material = gathered(source, method, settings)
    site = Site(Path(out), world, place, workers, say if world.rank == 0 else ignored)
    name = name_of(model, material.net)
    threading = computing(threads) if threads is not None else nullcontext()
    with taken(site, material, identity_of(material, name, settings, ways), resume=resume), threading:
        net, best = carried_out(material, settings, ways, site, progress, tensorboard=tensorboard)
    card = card_of(material, name, settings, ways, command, pretrained=pretrained)
    return finished(site, net, best, card)


@contextmanager
def taken(site: Site, material: Material, identity: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Take the run's folder, and see that the network can be written in the end.

    The folder is given back if training fails before anything was made, so that the corrected command can have it.
    """
    holding: AbstractContextManager[None] = nullcontext()
    if site.world.rank == 0:
        check_recipe(full_config(material.net, None), material.net.state_dict())
        claim(site.folder, identity, resume=resume)
        holding = alone(site.folder)
    site.world.wait()
    with holding:
        try:
            yield
        except BaseException:
            if site.world.rank == 0 and [path.name for path in site.folder.iterdir()] == [RECORD]:
                (site.folder / RECORD).unlink()
            raise


def carried_out(
    material: Material, settings: Settings, ways: Ways, site: Site, progress: Progress | None, *, tensorboard: bool
) -> tuple[nn.Module, dict[str, dict[str, float]]]:
    """The trained network, and of each stage the epoch that was chosen with its figures."""
    plan = settings.plan(ways.method, joint=ways.joint, cam=learns(getattr(material.net, "cam", None)))
    trainee, batches, val, settings = batches_of(material, settings, plan, site, freeze=ways.freeze)
    journal, after = None, None
    if site.world.rank == 0:
        total = sum(stage.epochs for stage in plan.values()) * len(batches)
        journal = Journal(site.folder, total=total, progress=progress, tensorboard=tensorboard)
        if ways.sharing == "ddp":  # with FSDP a process alone cannot run the network
            after = partial(draw, journal, material.val or material.examples)
    loop = Loop(
        *(trainee, batches, val, plan, settings),
        site=site,
        checkpoints=Checkpoints(site.folder / "checkpoints", say=site.say),
        journal=journal or Silent(),
        sharing=ways.sharing,
        score=by_boxes(material.val.data, site) if ways.select == "boxes" and material.val else None,
        after=after,
    )
    return trainee.net, loop.run().best


def learns(part: nn.Module | None) -> bool:
    """Whether there is something to train in a part of a network."""
    return part is not None and any(parameter.requires_grad for parameter in part.parameters())


def ignored(_: str) -> None:
    """What processes other than 0 have to say."""


def identity_of(material: Material, name: str, settings: Settings, ways: Ways) -> dict[str, Any]:
    """All that the result depends on; not how many processes there are, and how they share it."""
    return {  # what the caller chose before what follows from it: the first that differs is what is said
        "trt_cam": __version__,
        **{key: value for key, value in asdict(ways).items() if key != "sharing"},
        "settings": asdict(settings),
        "model": {"name": name, "weights": of_weights(material.net)},
        "data": photos_of(material.examples),
        "val": None if material.val is None else photos_of(material.val),
    }


def photos_of(examples: Examples) -> dict[str, Any]:
    """Which photos there are, and how they are labelled."""
    labels = hashlib.sha256(examples.labels.astype(np.int64).tobytes()).hexdigest()[:16]
    return of_data(examples.data, examples.rows) | {"labels": labels}


def finished(site: Site, net: nn.Module, best: dict[str, dict[str, float]], card: Mapping[str, Any]) -> Trained:
    """Write the network with its card, and read it again."""
    if site.world.rank == 0:
        stage, figures = list(best.items())[-1]
        named = {name: value for name, value in figures.items() if name not in ("epoch", "score")}
        chosen = f"{card['selection']} Epoch {figures['epoch']:g} was taken of the stage {stage}."
        save_pretrained(net, site.folder / MODEL, card={**card, "selection": chosen, "metrics": named})
    site.world.wait()
    return Trained(site.folder, best, load_model(site.folder / MODEL))
