"""What can be watched of a training: tables, the time left, TensorBoard, and heat maps as they are by now."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from trt_cam.errors import InputError
from trt_cam.evaluation import Progress
from trt_cam.localization import Localization, iter_localize
from trt_cam.runs import write_whole, writing

MOST_PICTURES = 8
_SIDE, _GAP, _COLUMNS = 224, 8, 2  # pixels of the larger side of a picture, and between pictures; pairs in a row


class Journal:
    """The records of one training, in its folder: ``log.csv``, ``epochs.csv``, ``samples/`` and ``tensorboard/``.

    A training that is gone on with writes over what it had written beyond that point: files read as if never cut.

    Parameters
    ----------
    folder
        Of the run.
    total
        Steps of the whole training.
    progress
        Called after each step with its number, ``total``, and 0.
    tensorboard
        Whether to write for TensorBoard too.

    Raises
    ------
    InputError
        TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, total: int, progress: Progress | None = None, tensorboard: bool = False
    ) -> None:
        self.folder, self.total, self.progress = folder, total, progress
        self._steps, self._epochs = _Table(folder / "log.csv", "step"), _Table(folder / "epochs.csv", "epoch")
        self._board = _Board(folder / "tensorboard") if tensorboard else None
        self._last = 0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Record a step, counted from 1."""
        self._last = step
        self._steps.add(step, values)
        if self._board is not None:
            self._board.add("step", step, values)
        if self.progress is not None:
            self.progress(step, self.total, 0)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record an epoch; 0 is before the first."""
        self._epochs.add(epoch, values)
        if self._board is not None:
            self._board.add("epoch", self._last, values)

    def pictures(self, epoch: int, net: nn.Module, photos: Sequence[Path], labels: Sequence[int]) -> Path | None:
        """Draw up to 8 photos beside their heat maps and boxes, and leave the network as it was.

        Parameters
        ----------
        epoch
            For the file's name.
        net
            As it is by now.
        photos, labels
            Files, and the class to look for in each.

        Returns
        -------
        The file; None where no photo could be read or explained.
        """
        shown, classes = list(photos[:MOST_PICTURES]), list(labels[:MOST_PICTURES])
        results = iter_localize(shown, model=net, target=classes)
        pairs = [_pair(one) for one in results if isinstance(one, Localization)]
        if not pairs:
            return None
        path, picture = self.folder / "samples" / f"epoch_{epoch:03d}.png", _sheet(pairs)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: picture.save(file, "PNG"))
        return path


class _Table:
    """A CSV file of numbered rows; the first that is added cuts off those from its number on."""

    def __init__(self, path: Path, number: str) -> None:
        self.path, self.columns = path, [number]
        self.begun = False

    def add(self, number: int, values: Mapping[str, float]) -> None:
        """Write a row; a name that is new becomes a column."""
        if not self.begun:
            self._rewrite(self._rows(before=number))
            self.begun = True
        if new := [name for name in values if name not in self.columns]:
            rows = self._rows(before=number)
            self.columns += new
            self._rewrite(rows)
        row = {self.columns[0]: str(number)} | {name: repr(float(value)) for name, value in values.items()}
        with writing(self.path), open(self.path, "a", encoding="utf-8", newline="") as file:
            self._writer(file).writerow(row)

    def _rows(self, before: int) -> list[dict[str, str]]:
        """Whole rows of smaller numbers; columns become those of the file."""
        if not self.path.is_file():
            return []
        with writing(self.path):
            whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")  # after it is what a kill left
        lines = list(csv.reader(whole.splitlines()))
        if not lines or lines[0][:1] != self.columns[:1]:
            return []
        self.columns = lines[0]
        return [
            dict(zip(self.columns, line, strict=True))
            for line in lines[1:]
            if len(line) == len(self.columns) and line[0].isdigit() and int(line[0]) < before
        ]

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        self._writer(text).writeheader()
        self._writer(text).writerows(rows)
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))

    def _writer(self, file: Any) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self.columns, restval="", lineterminator="\n")


class _Board:
    """Scalars for TensorBoard; those that an earlier process wrote from the first step on are withdrawn."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard needs the package tensorboard; pip install 'trt-cam[train]'") from error
        self._make, self.folder = SummaryWriter, folder
        self._writer: Any = None

    def add(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step."""
        with writing(self.folder):
            if self._writer is None:
                self._writer = self._make(self.folder, purge_step=step)
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
            if group == "epoch":
                self._writer.flush()


def _pair(found: Localization) -> Image.Image:
    """A photo, and the same under its heat with its box."""
    drawn = found.picture(max_side=_SIDE)
    photo = found.photo.resize(drawn.size, Image.Resampling.BOX)
    return _pasted([photo, drawn], (2 * _SIDE + _GAP, _SIDE), columns=2)


def _sheet(pairs: Sequence[Image.Image]) -> Image.Image:
    """Pairs below each other, two in a row."""
    columns, rows = min(_COLUMNS, len(pairs)), -(-len(pairs) // _COLUMNS)
    wide, high = 2 * _SIDE + 4 * _GAP, _SIDE + 2 * _GAP
    return _pasted(pairs, (columns * wide, rows * high), columns=columns)


def _pasted(pictures: Sequence[Image.Image], size: tuple[int, int], *, columns: int) -> Image.Image:
    """Pictures on white, each in the middle of its cell."""
    sheet = Image.new("RGB", size, "white")
    rows = -(-len(pictures) // columns)
    wide, high = size[0] // columns, size[1] // rows
    for number, picture in enumerate(pictures):
        left, top = number % columns * wide, number // columns * high
        sheet.paste(picture, (left + (wide - picture.width) // 2, top + (high - picture.height) // 2))
    return sheet
