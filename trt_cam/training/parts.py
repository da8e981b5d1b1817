"""What a frozen trunk gave of photos, as files: numbered parts, each there whole or not at all.

A part is one ``.npy`` of records, a row for each photo and a field for each tensor, read through a memory map.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trt_cam.errors import DatasetError, InputError
from trt_cam.runs import write_whole

ROWS = 32
"""Photos of a part."""


@dataclass(frozen=True)
class Parts:
    """The files of a number of views of some photos: first all of view 0, then all of view 1, ...

    Attributes
    ----------
    folder
        Where they are.
    dtype
        Of a photo: a field for each tensor.
    count, views
        How many photos, and views of each.
    """

    folder: Path
    dtype: np.dtype[Any]
    count: int
    views: int

    def __len__(self) -> int:
        return self.each * self.views

    @property
    def each(self) -> int:
        """Parts of one view."""
        return -(-self.count // ROWS)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors."""
        return self.dtype.names or ()

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are not there."""
        return [number for number in range(len(self)) if not self.path(number).exists()]

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"{number:08d}.npy"

    def places(self, number: int) -> npt.NDArray[np.int64]:
        """The photos of a part, by their places."""
        first = number % self.each * ROWS
        return np.arange(first, min(first + ROWS, self.count))

    def write(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep what the trunk gave of a part's photos, (B, ...) each.

        Raises
        ------
        InputError
            A value is not finite, or too large for half precision.
        """
        records = np.empty(len(self.places(number)), self.dtype)
        for name in self.names:
            values = tensors[name].float().cpu().numpy()
            with np.errstate(over="ignore"):
                records[name] = values
            if not np.isfinite(records[name]).all():
                raise InputError(
                    f"finite values within {np.finfo(self.dtype[name].base).max:.3g} were needed of the trunk, got "
                    f"up to {np.abs(values).max():.3g} in {name}; train without freezing the backbone"
                )
        made = io.BytesIO()  # straight to a file numpy hides why it could not write
        np.save(made, records, allow_pickle=False)
        write_whole(self.path(number), lambda file: file.write(made.getbuffer()))

    def read(self, places: npt.NDArray[np.int64], view: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Tensors (B, ...) of the photos at some places, in the precision that they are kept in.

        Raises
        ------
        DatasetError
            A part is damaged.
        """
        parts, rows = np.divmod(places, ROWS)
        found = {name: np.empty((len(places), *self.dtype[name].shape), self.dtype[name].base) for name in names}
        for part in np.unique(parts).tolist():
            where = np.flatnonzero(parts == part)
            records = self.open(view * self.each + part)
            for name in names:
                found[name][where] = records[name][rows[where]]
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def open(self, number: int) -> npt.NDArray[Any]:
        """The records of a part, for as long as they are needed: a map that is kept open counts as memory."""
        path = self.path(number)
        try:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DatasetError(f"{path} is damaged ({error}); delete it, and the same command makes it again") from None
        if records.dtype != self.dtype or len(records) != len(self.places(number)):
            raise DatasetError(f"{path} holds something else; delete it, and the same command makes it again")
        return records  # type: ignore[no-any-return]
