"""In which order an epoch takes its rows, and which of them each process takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_cam.errors import InputError
from trt_cam.ops._checks import check_count
from trt_cam.runs import World


@dataclass(frozen=True)
class Order:
    """The steps of every epoch, fixed by the seed and the epoch's number alone.

    An epoch is one permutation of the rows; a step takes ``batch`` rows for each process, and process r the r-th slice
    of them. So two processes with batches of b see together what one sees with batches of 2b.

    Attributes
    ----------
    count
        Rows in all.
    batch
        Rows of one step of one process.
    world
        The processes.
    seed
        Of the permutations; at least 0.
    shuffle
        False takes the rows as they lie, and all of them. With True rows that do not fill a step of all processes are
        left for another epoch, so that every step has the same weight.

    Raises
    ------
    InputError
        A number is out of range, or a shuffled epoch has no whole step.
    """

    count: int
    batch: int
    world: World = World()
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (("batch", self.batch, 1), ("seed", self.seed, 0)):
            check_count(value, name, least)
        if self.shuffle and self.count < self._together:
            several = f" for each of {self.world.size} processes" if self.world.size > 1 else ""
            raise InputError(
                f"batch must be at most {self.count // self.world.size}, as there are {self.count} photos; "
                f"got {self.batch}{several}"
            )

    @property
    def _together(self) -> int:
        return self.batch * self.world.size

    def __len__(self) -> int:
        steps = self.count / self._together
        return int(steps) if self.shuffle else int(np.ceil(steps))

    def steps(self, epoch: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of this process, step by step.

        Parameters
        ----------
        epoch
            From 0.
        start
            The first step, where an epoch is gone on with.

        Returns
        -------
        For each step (b,) int64, b at most ``batch``. Where a last step has fewer rows than there are processes, those
        left without get the row -1, which stands for none: all processes take the same number of steps.
        """
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        for step in range(start, len(self)):
            rows = order[step * self._together : (step + 1) * self._together]
            own = np.array_split(rows, self.world.size)[self.world.rank]
            yield own if len(own) else np.array([-1])
