"""What a frozen trunk gives of each view of each photo: made once, part by part, and read as batches.

A run that was cut short goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trt_cam.errors import OutputError
from trt_cam.ops._checks import check_count
from trt_cam.runs import RECORD, World, claim, writing
from trt_cam.training.cut import EXACT
from trt_cam.training.examples import Examples
from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.order import Order
from trt_cam.training.pace import faster, forecast
from trt_cam.training.parts import ROWS, Parts
from trt_cam.training.photos import PhotoBatches
from trt_cam.training.processes import summed
from trt_cam.training.settings import Precision
from trt_cam.training.views import View


class Cache:
    """A folder with what the trunk gives of ``views`` views of each photo. Nothing is written before `fill`.

    Parameters
    ----------
    folder
        Made if it is not there. An existing one must be empty or hold this very cache.
    trainee
        With the trunk, on its device.
    stages
        What these stages read is kept, and no more.
    examples, view, seed
        The photos and what becomes of them; view v of a photo is what `PhotoBatches` gives of it in epoch v.
    views
        How many of each photo.
    precision : "fp32", "bf16" or "auto"
        Of the trunk. Auto is the faster one, tried here and now, or what a cache that is gone on with began with.
    half
        Keep tensors in half precision, but for those on which a threshold is laid.
    world
        The processes that make the cache together.
    """

    def __init__(
        self,
        folder: Path,
        trainee: FrozenTrainee,
        stages: Sequence[str],
        examples: Examples,
        view: View,
        *,
        views: int = 1,
        seed: int = 0,
        precision: Precision = "auto",
        half: bool = True,
        world: World | None = None,
    ) -> None:
        check_count(views, "views", 1)
        self.folder, self.trainee, self.examples, self.view = folder, trainee, examples, view
        self.seed, self.world = seed, world or World()
        self.device = next(trainee.parameters()).device
        self.precision = self.tried() if precision == "auto" else precision
        dtype = record_of(trainee, trainee.reads(*stages), half)
        self.parts = Parts(folder / "parts", dtype, len(examples), views)

    def tried(self) -> Precision:
        """What the cache began with, or what is faster for most of the processes."""
        if begun := begun_with(self.folder):
            return begun
        votes = summed(torch.tensor(float(faster(self.trainee, self.some()) == "bf16")), self.world)
        return "bf16" if votes > self.world.size / 2 else "fp32"

    @property
    def identity(self) -> dict[str, Any]:
        """What is in it depends on these."""
        return {
            "trunk": self.trainee.fingerprint(),
            "tensors": np.lib.format.dtype_to_descr(self.parts.dtype),
            "photos": photos_digest(self.examples),
            "view": described(self.view),
            "views": self.parts.views,
            "seed": self.seed,
            "precision": self.precision,
        }

    @property
    def needed(self) -> int:
        """Bytes of the parts that are missing."""
        return sum(len(self.parts.places(number)) for number in self.parts.missing) * self.parts.dtype.itemsize

    def fill(
        self,
        *,
        epochs: Mapping[str, int] | None = None,
        reserved: int = 0,
        workers: int = 0,
        say: Callable[[str], None],
    ) -> None:
        """Make the parts that are missing; each process some of them.

        Parameters
        ----------
        epochs
            By stage, of the training that is to follow, to say how long all will take.
        reserved
            Bytes that the disk must have room for besides, for what is written later.
        workers
            Processes that read photos.
        say
            Told what the disk needs, before anything is written, and how long all will take.

        Raises
        ------
        OutputError
            The disk has not enough room. Nothing is written then.
        InputError
            The folder holds another model's cache, other photos' or something else.
        """
        if needed := self.needed:
            self.check_room(needed, reserved, say)
        if self.world.rank == 0:
            claim(self.folder, self.identity, resume=True, instead="delete it, and the same command makes it again")
            with writing(self.folder):
                self.parts.folder.mkdir(exist_ok=True)
                for unfinished in self.parts.folder.glob(".*"):
                    unfinished.unlink()  # of a run that was killed
        if needed and epochs:
            say(self.forecast(epochs))
        self.world.wait()
        own = self.parts.missing[self.world.rank :: self.world.size]
        self.world.wait()  # all know what is missing before one begins
        photos = self.photos(workers, say)
        for view in range(self.parts.views):
            numbers = [number for number in own if number // self.parts.each == view]
            photos.order = Listed(len(self.examples), ROWS, listed=tuple(map(self.parts.places, numbers)))
            for number, batch in zip(numbers, photos.epoch(view), strict=True):
                self.parts.write(number, self.trainee.record(batch["images"].to(self.device), self.precision))
        self.world.wait()

    def check_room(self, needed: int, reserved: int, say: Callable[[str], None]) -> None:
        """Say what the cache takes, in bytes, and refuse a disk that has less than that and what is reserved."""
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free, views = shutil.disk_usage(place).free, self.parts.views
        photos = f"{len(self.examples)} photos" + (f" in {views} views" if views > 1 else "")
        say(f"cache of {photos} in {self.folder}: {size(needed)} to write in {self.precision}, {size(free)} free")
        if needed + reserved > free:
            besides = f", and {size(reserved)} besides for later," if reserved else ""
            raise OutputError(
                f"a cache of {photos} needs {size(needed)}{besides} in {self.folder}, where {size(free)} are free; "
                "make room, give another place, or take fewer views or smaller images"
            )

    def forecast(self, epochs: Mapping[str, int]) -> str:
        """How long the parts that are missing and a training are likely to take, in words."""
        views = self.needed / self.parts.dtype.itemsize / self.world.size
        photos = len(self.examples) / self.world.size
        return forecast(self.trainee, self.some(), epochs, photos=photos, views=views, precision=self.precision)

    def photos(self, workers: int, say: Callable[[str], None]) -> PhotoBatches:
        """The photos as they lie."""
        return PhotoBatches(
            self.examples, self.view, batch=ROWS, shuffle=False, seed=self.seed, workers=workers, say=say
        )

    def some(self) -> Tensor:
        """A few photos, to try something on."""
        photos = self.photos(0, lambda _: None)
        photos.order = Order(len(self.examples), 8, shuffle=False)
        return next(photos.epoch(0))["images"].to(self.device)


@dataclass(frozen=True)
class Listed(Order):
    """Steps that are listed, the same in all epochs."""

    shuffle: bool = False
    listed: tuple[npt.NDArray[np.int64], ...] = ()

    def steps(self, epoch: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of each step."""
        return iter(self.listed[start:])


class CachedBatches:
    """Batches of cached tensors, the same for an epoch's number whenever they are asked for.

    Epoch e reads view e modulo the number of views, in the order that `PhotoBatches` would take the photos in.

    Parameters
    ----------
    cache
        Filled.
    order
        Of the epochs, over the cache's photos.
    names
        Of the tensors to read, as ``trainee.reads(stage)`` gives them.
    """

    def __init__(self, cache: Cache, order: Order, names: Sequence[str]) -> None:
        self.cache, self.order, self.names = cache, order, tuple(names)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def precision(self) -> Precision:
        """That the trunk was run in."""
        return self.cache.precision

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, from a step on.

        Returns
        -------
        For each step the named tensors (B, ...), ``label`` (B,) int64 and ``index`` (B,) int64, the row in the data
        set; both -1 where there is no photo for this process.
        """
        examples, parts = self.cache.examples, self.cache.parts
        for places in self.order.steps(number, start):
            batch = parts.read(np.maximum(places, 0), number % parts.views, self.names)
            for name, values in (("label", examples.labels), ("index", examples.rows)):
                batch[name] = torch.from_numpy(np.where(places >= 0, values[places], -1))
            yield batch


def record_of(trainee: FrozenTrainee, names: Sequence[str], half: bool) -> np.dtype[Any]:
    """What is kept of one photo."""
    some = next(trainee.parameters())
    tensors = trainee.record(some.new_zeros(1, 3, *trainee.cut.size))
    kinds = {name: "<f2" if half and name not in EXACT else "<f4" for name in names}
    return np.dtype([(name, kinds[name], tuple(tensors[name].shape[1:])) for name in names])


def begun_with(folder: Path) -> Precision | None:
    """The precision of a cache that is there."""
    try:
        held = json.loads((folder / RECORD).read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return held if held in ("fp32", "bf16") else None


def photos_digest(examples: Examples) -> str:
    """Checksum of which photos there are: ids, classes, sizes and times of their files."""
    digest = hashlib.sha256()
    for row, label in zip(examples.rows.tolist(), examples.labels.tolist(), strict=True):
        sample = examples.data[row]
        try:
            found = sample.path.stat()
            stamp = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            stamp = "missing"  # another photo of its class is taken
        digest.update(f"{row} {sample.id} {label} {stamp}\n".encode())
    return digest.hexdigest()


def described(view: View) -> dict[str, Any]:
    """What becomes of a photo, in words."""
    named = {"augment": view.augment, "size": view.size, "resize": view.resize, "prepare": asdict(view.prepare)}
    return named | {"transform": None if view.transform is None else repr(view.transform)}


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
