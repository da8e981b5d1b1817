"""What a frozen trunk gave of each view of each photo, on disk: made once, part by part, and read as batches.

A part is one ``.npy`` of records, a row for each photo, a field for each tensor: half precision, read through memory
maps, written whole or not at all. A run that was cut short goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trt_cam.errors import DatasetError, InputError, OutputError
from trt_cam.ops._checks import check_count
from trt_cam.runs import Run, World, write_whole
from trt_cam.training.cut import EXACT
from trt_cam.training.examples import Examples
from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.order import Order
from trt_cam.training.photos import PhotoBatches
from trt_cam.training.views import View

ROWS = 32
"""Photos of a part, and of one batch of the trunk."""


class Cache:
    """A folder with what the trunk gives of ``views`` views of each photo.

    Parameters
    ----------
    folder
        Made if it is not there. An existing one must be empty or hold this very cache.
    trainee
        With the trunk.
    stages
        What these stages read is kept, and no more.
    examples, view, seed
        The photos and what becomes of them; view v of a photo is what `PhotoBatches` gives of it in epoch v.
    views
        How many of each photo.
    precision : "fp32" or "bf16"
        Of the trunk.
    half
        Keep tensors in half precision, but for those on which a threshold is laid.
    world
        The processes that make the cache together.

    Raises
    ------
    InputError
        The folder holds another model's cache, other photos' or something else.
    OutputError
        The disk has not enough room. Nothing is written then.
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
        precision: str = "fp32",
        half: bool = True,
        world: World | None = None,
    ) -> None:
        check_count(views, "views", 1)
        self.folder, self.trainee, self.examples, self.view = folder, trainee, examples, view
        self.views, self.seed, self.precision, self.world = views, seed, precision, world or World()
        self.dtype = self._dtype(trainee.reads(*stages), half)
        self.parts = Parts(len(examples), ROWS, views=views)
        self.identity = {
            "trunk": trainee.fingerprint(),
            "tensors": {name: [str(self.dtype[name].base), *self.dtype[name].shape] for name in self.dtype.names or ()},
            "photos": photos_digest(examples),
            "view": described(view),
            "views": views,
            "seed": seed,
            "precision": precision,
        }

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are not there."""
        return [number for number in range(len(self.parts)) if not self.path(number).exists()]

    @property
    def needed(self) -> int:
        """Bytes of the parts that are missing."""
        return sum(len(self.parts.places(number)) for number in self.missing) * self.dtype.itemsize

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / "parts" / f"{number:08d}.npy"

    def fill(self, *, workers: int = 0, say: Callable[[str], None]) -> None:
        """Make the parts that are missing; each process some of them.

        Parameters
        ----------
        workers
            Processes that read photos.
        say
            Told what is needed before anything is written, and how far it is.
        """
        self.check_room(say)
        Run(self.folder, self.identity, resume=True, world=self.world)
        own = self.missing[self.world.rank :: self.world.size]
        photos = PhotoBatches(
            self.examples, self.view, batch=ROWS, shuffle=False, seed=self.seed, workers=workers, say=say
        )
        device = next(self.trainee.parameters()).device
        for view in range(self.views):
            photos.order = self.parts.only([number for number in own if self.parts.view(number) == view])
            for number, batch in zip(photos.order.numbers, photos.epoch(view), strict=True):
                tensors = self.trainee.record(batch["images"].to(device), self.precision)
                self._write(number, tensors)
        self.world.wait()

    def check_room(self, say: Callable[[str], None]) -> None:
        """Say what the cache takes, and refuse a disk that has less."""
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free, needed = shutil.disk_usage(place).free, self.needed
        photos = f"{len(self.examples)} photos" + (f" x {self.views} views" if self.views > 1 else "")
        say(f"cache of {photos} in {self.folder}: {size(needed)} to write, {size(free)} free")
        if needed > free:
            raise OutputError(
                f"a cache of {photos} needs {size(needed)} in {self.folder}, where {size(free)} are free; "
                "make room, give another place, or take fewer views or a smaller size"
            )

    def read(self, places: npt.NDArray[np.int64], view: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Tensors (B, ...) of some photos, by their places among the examples, in the precision that they are kept."""
        parts, rows = np.divmod(places, ROWS)
        found = {name: np.empty((len(places), *self.dtype[name].shape), self.dtype[name].base) for name in names}
        for part in np.unique(parts):
            where = np.flatnonzero(parts == part)
            records = self._open(self.parts.number(int(part), view))
            for name in names:
                found[name][where] = records[name][rows[where]]
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def _open(self, number: int) -> npt.NDArray[Any]:
        path = self.path(number)
        try:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{path} is damaged ({error}); delete it, and the same command makes it again") from None
        if records.dtype != self.dtype or len(records) != len(self.parts.places(number)):
            raise DatasetError(f"{path} holds something else; delete it, and the same command makes it again")
        return records  # type: ignore[no-any-return]

    def _write(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        records = np.empty(len(self.parts.places(number)), self.dtype)
        for name in self.dtype.names or ():
            values = tensors[name].float().cpu().numpy()
            with np.errstate(over="ignore"):
                records[name] = values
            if not np.isfinite(records[name]).all():
                raise InputError(
                    f"values that half precision holds were needed of the trunk, got up to {np.abs(values).max():.3g}; "
                    "keep the cache in full precision"
                )
        write_whole(self.path(number), lambda file: np.save(file, records, allow_pickle=False))

    def _dtype(self, names: Sequence[str], half: bool) -> np.dtype[Any]:
        some = next(self.trainee.parameters())
        tensors = self.trainee.record(some.new_zeros(1, 3, *self.trainee.cut.size))
        kinds = {name: "<f2" if half and name not in EXACT else "<f4" for name in names}
        return np.dtype([(name, kinds[name], tuple(tensors[name].shape[1:])) for name in names])


@dataclass(frozen=True)
class Parts(Order):
    """The parts of a cache as the steps of an epoch: of each view the photos as they lie.

    Attributes
    ----------
    views
        How many.
    numbers
        Of the parts to make; the rest is passed over.
    """

    shuffle: bool = False
    views: int = 1
    numbers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.each * self.views

    @property
    def each(self) -> int:
        """Parts of a view."""
        return -(-self.count // self.batch)

    def number(self, part: int, view: int) -> int:
        """Of a view's part."""
        return view * self.each + part

    def view(self, number: int) -> int:
        """The view that a part is of."""
        return number // self.each

    def places(self, number: int) -> npt.NDArray[np.int64]:
        """The photos of a part, by their places among the examples."""
        first = number % self.each * self.batch
        return np.arange(first, min(first + self.batch, self.count))

    def only(self, numbers: Sequence[int]) -> Parts:
        """These parts alone."""
        return Parts(self.count, self.batch, views=self.views, numbers=tuple(numbers))

    def steps(self, epoch: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """The photos of each part to make."""
        return (self.places(number) for number in self.numbers[start:])


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

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, from a step on.

        Returns
        -------
        For each step the named tensors (B, ...), ``label`` (B,) int64 and ``index`` (B,) int64, the row in the data
        set; both -1 where there is no photo for this process.
        """
        examples = self.cache.examples
        for places in self.order.steps(number, start):
            batch = self.cache.read(np.maximum(places, 0), number % self.cache.views, self.names)
            there = places >= 0
            for name, values in (("label", examples.labels), ("index", examples.rows)):
                batch[name] = torch.from_numpy(np.where(there, values[places], -1))
            yield batch


def photos_digest(examples: Examples) -> str:
    """Checksum of which photos there are: ids, sizes and times of their files."""
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
