"""What a training works on, made ready and checked before it starts: photos, those to choose by, network, batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trt_cam.backbone import imagenet_wnids, preprocessing
from trt_cam.data.catalog import load_dataset
from trt_cam.data.samples import DataSet
from trt_cam.errors import InputError
from trt_cam.evaluation.chosen import class_indices
from trt_cam.runs import World
from trt_cam.training.cache import Cache, CachedBatches
from trt_cam.training.examples import Examples, open_examples, split_off
from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.networks import Trainee, network
from trt_cam.training.order import Order
from trt_cam.training.photos import PhotoBatches
from trt_cam.training.processes import synchronised
from trt_cam.training.schedules import check_names
from trt_cam.training.settings import Select, Settings, Sharing, Stage
from trt_cam.training.validation import Batches
from trt_cam.training.views import View, drawing


@dataclass(frozen=True)
class Source:
    """What a training begins from, as its caller names it; see `train`."""

    data: DataSet | str | os.PathLike[str]
    model: str | os.PathLike[str] | nn.Module
    kind: str = "auto"
    split: str | None = None
    classes: str | Mapping[str, str | int] | None = None
    val: DataSet | str | os.PathLike[str] | None = None
    val_split: str | None = None
    pretrained: bool = True

    @property
    def held_out(self) -> bool:
        """Whether there are photos to choose by beside those to train on."""
        return self.val is not None or self.val_split is not None


@dataclass(frozen=True)
class Site:
    """Where a training takes place.

    Attributes
    ----------
    folder
        Of the run.
    world, device
        The processes, and where this one computes.
    workers
        Processes of this one that read photos.
    say
        Told in a line of what deserves it.
    """

    folder: Path
    world: World
    device: torch.device
    workers: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Ways:
    """Ways to train that are a choice of mechanism, not of numbers; see `train`."""

    method: str
    freeze: bool = False
    joint: bool = False
    select: Select = "classification"
    sharing: Sharing = "ddp"


@dataclass
class Material:
    """What is trained, and on what.

    Attributes
    ----------
    net
        The network as it begins.
    examples, val
        Photos to train on, and to choose by.
    """

    net: nn.Module
    examples: Examples
    val: Examples | None


def gathered(source: Source, method: str, settings: Settings) -> Material:
    """Open the data, then the model, then what to choose by."""
    examples = open_examples(source.data, kind=source.kind, split=source.split)
    data, classes = examples.data, source.classes
    with drawing(settings.seed, 0):
        names = None if classes is not None else data.classes or data.num_classes
        net = network(source.model, method, names, settings, pretrained=source.pretrained)
    own = None if isinstance(classes, str) else classes
    if classes is not None:
        examples = Examples.of(data, class_indices(data, net, own))
    if not source.held_out:
        share = settings.val_share
        return Material(net, *(split_off(examples, share, settings.seed) if share else (examples, None)))
    val = source.val
    others = val if isinstance(val, DataSet) else load_dataset(Path(val or data.root), "auto", source.val_split)
    places = named_alike(others, examples.classes) if classes is None else class_indices(others, net, own)
    return Material(net, examples, Examples.of(others, places))


def named_alike(others: DataSet, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The class among ``classes`` of each of another data set's, by name; -1 for none. Without names by number.

    Where these are WordNet ids of ImageNet, the numbers are taken for those of its 1,000 classes.
    """
    named = others.classes or (imagenet_wnids() if set(classes) <= set(imagenet_wnids()) else None)
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place.get(name, -1) for name in named]) if named else np.arange(len(classes))


def batches_of(
    material: Material, settings: Settings, plan: Mapping[str, Stage], site: Site, *, freeze: bool
) -> tuple[Trainee, Batches, Batches | None, Settings]:
    """The trainee on its device, batches for it (photos, or what a frozen trunk gave of them once), and its precision.

    The settings are returned with the precision that "auto" stands for.
    """
    net, prepare = material.net.to(site.device), preprocessing(material.net)
    view = View(
        prepare,
        settings.augment,
        resize=settings.resize,
        scale=settings.scale,
        policy=settings.policy,
        erasing=settings.erasing,
    )
    sets = [(material.examples, view)]
    sets += [(material.val, View(prepare, "none"))] if material.val is not None else []
    found: list[Batches] = []
    if not freeze:
        trainee = Trainee(synchronised(net, settings, site.world, site.device))
        for examples, one in sets:
            found.append(photos(examples, one, settings, site, shuffle=not found))
    else:
        trainee = FrozenTrainee(net, prepare.size)
        caches: list[Cache] = []
        for examples, one in sets:
            found.append(batches := cached(trainee, plan, examples, one, settings, site, shuffle=not found))
            caches.append(batches.cache)
            settings = replace(settings, precision=batches.precision) if settings.precision == "auto" else settings
        fill(caches, plan, site)
    return trainee, found[0], found[1] if len(found) > 1 else None, settings


def photos(examples: Examples, view: View, settings: Settings, site: Site, *, shuffle: bool) -> PhotoBatches:
    """Batches of photos for this process."""
    return PhotoBatches(
        examples,
        view,
        batch=settings.batch // site.world.size,
        shuffle=shuffle,
        seed=settings.seed,
        world=site.world,
        workers=site.workers,
        say=site.say,
    )


def cached(
    trainee: FrozenTrainee,
    plan: Mapping[str, Stage],
    examples: Examples,
    view: View,
    settings: Settings,
    site: Site,
    *,
    shuffle: bool,
) -> CachedBatches:
    """Batches of what the trunk gives of photos, once their cache is filled."""
    world, seed = site.world, settings.seed
    stages = [*plan] if shuffle or "tpsm" not in plan else ["joint"]  # both branches are validated
    # before the work, for it refuses a batch that is larger than the data
    order = Order(len(examples), settings.batch // world.size, world, seed, shuffle)
    cache = Cache(
        site.folder / "cache" / ("train" if shuffle else "val"),
        trainee,
        stages,
        examples,
        view,
        views=settings.views if shuffle else 1,
        seed=seed,
        precision="bf16" if settings.precision == "fp16" else settings.precision,
        world=world,
    )
    return CachedBatches(cache, order, trainee.reads(*stages))


def fill(caches: Sequence[Cache], plan: Mapping[str, Stage], site: Site) -> None:
    """Run the trunk over the photos of all caches; a disk without room for all is refused before the first is begun."""
    epochs = {name: stage.epochs for name, stage in plan.items()}
    for place, cache in enumerate(caches):
        later = sum(one.needed for one in caches[place + 1 :])
        cache.fill(epochs=None if place else epochs, reserved=later, workers=site.workers, say=site.say)


def check_options(settings: Settings, ways: Ways, world: World, source: Source) -> None:
    """Refuse what does not go together."""
    share = settings.batch // world.size
    whole = ways.sharing == "fsdp" and (settings.ema is not None or settings.precision == "fp16" or ways.freeze)
    wrong = {
        f"joint is a way to train trt, not {ways.method}": ways.joint and ways.method != "trt",
        f"batch must be a multiple of the {world.size} processes, got {settings.batch}": settings.batch % world.size,
        f"accumulate must be at most the {share} photos of a process, got {settings.accumulate}": (
            settings.accumulate > share
        ),
        "mixup and cutmix need photos, not a frozen backbone's tensors; leave them out": settings.mixes and ways.freeze,
        f"mixup and cutmix need an even number of photos for each process, got {share}": settings.mixes and share % 2,
        "fsdp goes with neither a frozen backbone, nor ema, nor fp16; leave them out, or use ddp": whole,
        f"sharing must be ddp or fsdp, got {ways.sharing!r}": ways.sharing not in ("ddp", "fsdp"),
        f"select must be classification or boxes, got {ways.select!r}": ways.select not in ("classification", "boxes"),
        "select='boxes' needs photos with boxes to choose by, got none; give val or val_split": (
            ways.select == "boxes" and not source.held_out
        ),
    }
    for words, so in wrong.items():
        if so:
            raise InputError(words)
    check_names(settings.optimizer, settings.schedule)
