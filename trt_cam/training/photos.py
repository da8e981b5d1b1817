"""From labelled photos to batches, the same whoever reads them, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trt_cam.data.photos import Photo
from trt_cam.errors import DatasetError, InputError
from trt_cam.ops._checks import check_count, check_range
from trt_cam.runs import World
from trt_cam.training.examples import Examples
from trt_cam.training.order import Order
from trt_cam.training.views import View, drawing


class Item(NamedTuple):
    """One row of a batch; ``image`` is None where no photo of its class can be read."""

    image: Tensor | None
    label: int
    row: int
    unreadable: list[tuple[int, str]]  # row and reason


class Reading(torch.utils.data.Dataset[Item]):
    """Photos by epoch and place, as worker processes read them.

    A photo that cannot be read is replaced by the next of its class that can, under the same augmentation.
    """

    def __init__(self, examples: Examples, view: View, seed: int) -> None:
        self.examples, self.view, self.seed = examples, view, seed

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, place = key
        if place < 0:
            return Item(torch.zeros(3, *self.view.size), -1, -1, [])
        row, label = int(self.examples.rows[place]), int(self.examples.labels[place])
        photo, unreadable = self.read(place)
        if photo is None:
            return Item(None, label, row, unreadable)
        with drawing(self.seed, epoch, row):
            return Item(self.view(photo), label, row, unreadable)

    def read(self, place: int) -> tuple[Photo | None, list[tuple[int, str]]]:
        """The photo or the one in its place, and what could not be read on the way."""
        photo, error = self.open(place)
        unreadable: list[tuple[int, str]] = []
        for other in self.examples.alike(place).tolist() if error else ():
            photo, error = self.open(other)
            if photo is not None:
                break
            unreadable.append((int(self.examples.rows[other]), error))
        return photo, unreadable

    def open(self, place: int) -> tuple[Photo | None, str]:
        """A photo, or why there is none."""
        try:
            return self.view.open(self.examples.data[int(self.examples.rows[place])].path), ""
        except (InputError, DatasetError) as error:
            return None, str(error)


class PhotoBatches:
    """Batches of photos, the same for an epoch's number whenever they are asked for.

    Parameters
    ----------
    examples
        Photos and labels.
    view
        What becomes of a photo.
    batch
        Photos of one step of this process.
    shuffle, seed, world
        As in `Order`; False, with a view of "none", to evaluate. A process left without a photo in the last step
        then gets a grey one with label and index -1, which must not be counted.
    workers
        Processes that read.
    unreadable : in [0, 1]
        Share of the photos, rounded up, that may turn out unreadable before it is an error.
    say
        Told once of each photo that cannot be read.

    Raises
    ------
    InputError
        An option is out of range, or the batch is larger than the data.
    """

    def __init__(
        self,
        examples: Examples,
        view: View,
        *,
        batch: int,
        shuffle: bool = True,
        seed: int = 0,
        world: World | None = None,
        workers: int = 0,
        unreadable: float = 0.05,
        say: Callable[[str], None],
    ) -> None:
        check_count(workers, "workers")
        check_range(unreadable, "unreadable", 0, 1)
        self.examples, self.view = examples, view
        self._keys = _Keys(Order(len(examples), batch, world or World(), seed, shuffle))
        self.allowed, self.say, self.unreadable = unreadable, say, dict[int, str]()
        self._loader: Any = torch.utils.data.DataLoader(
            Reading(examples, view, seed),
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=together,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_initialized(),
            generator=torch.Generator(),  # it draws a number each epoch, which would else be of the training's own
        )

    @property
    def order(self) -> Order:
        """Which rows each step takes; another may be put in its place between epochs."""
        return self._keys.order

    @order.setter
    def order(self, order: Order) -> None:
        self._keys.order = order

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, from a step on; end one epoch before the next is begun.

        Returns
        -------
        For each step ``images`` (B, 3, H, W), ``label`` (B,) int64 and ``index`` (B,) int64, the row in the data set.

        Raises
        ------
        DatasetError
            More photos are unreadable than are allowed, or all of a class.
        """
        self._keys.epoch, self._keys.start = number, start
        for batch, unreadable in self._loader:
            self._note(unreadable)
            if "images" not in batch:
                name = self.examples.data[int(batch["index"][0])].id
                raise DatasetError(f"no photo of the class of {name} can be read; check its folder")
            yield batch

    def _note(self, unreadable: list[tuple[int, str]]) -> None:
        for row, reason in unreadable:
            if row not in self.unreadable:
                self.unreadable[row] = reason
                self.say(f"{reason}; another photo of its class is taken instead")
        if len(self.unreadable) > math.ceil(self.allowed * len(self.examples)):
            raise DatasetError(
                f"at most {self.allowed:.0%} of {len(self.examples)} photos may be unreadable, but "
                f"{len(self.unreadable)} are by now; run `trt-cam data check` on {self.examples.data.root}"
            )


class _Keys:
    """The epoch and places of each step, as the loader asks for them.

    It does not know the batches: in a circle of references the loader would wait five seconds for each of its workers.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.epoch, self.start = order, 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for places in self.order.steps(self.epoch, self.start):
            yield [(self.epoch, place) for place in places.tolist()]


def together(items: list[Item]) -> tuple[dict[str, Tensor], list[tuple[int, str]]]:
    """Rows as a batch, and what was unreadable; a batch without images names the row that has none."""
    unreadable = [one for item in items for one in item.unreadable]
    images = [item.image for item in items if item.image is not None]
    if len(images) < len(items):
        return {"index": torch.tensor([item.row for item in items if item.image is None])}, unreadable
    batch = {"images": torch.stack(images), "label": torch.tensor([item.label for item in items])}
    return batch | {"index": torch.tensor([item.row for item in items])}, unreadable
