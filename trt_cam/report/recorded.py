"""A finished run, read back from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.errors import DatasetError, InputError
from trt_cam.evaluation.measuring import Results, from_arrays
from trt_cam.metrics.choices import Thresholds, position
from trt_cam.metrics.masks import MaskResults, average_precision
from trt_cam.metrics.records import LocalizationResults
from trt_cam.runs import RECORD, read_part

METRICS = "metrics.json"


@dataclass(frozen=True)
class Recorded:
    """What an evaluation left behind.

    Attributes
    ----------
    identity
        What the results depend on: ``run.json``.
    metrics
        Every figure: ``metrics.json``.
    """

    folder: Path
    identity: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Recorded:
        """A run's folder.

        Raises
        ------
        InputError
            It holds no run, or one that is not finished.
        DatasetError
            A file of it is damaged.
        """
        if not (folder / RECORD).is_file():
            inner = folder / "run"
            hint = f"give {inner}" if (inner / RECORD).is_file() else "give the --out of `trt-cam evaluate`"
            raise InputError(f"{folder} holds no run (no {RECORD}); {hint}")
        identity = _json(folder / RECORD, ("data", "model", "methods", "protocol", "batch_size"))
        found = cls(folder, identity, {})
        missing = sum(not path.exists() for path in found.paths)
        if missing or not (folder / METRICS).is_file():
            lacks = f"{missing} of {len(found.paths)} parts are missing" if missing else f"there is no {METRICS}"
            raise InputError(f"the run in {folder} is not finished: {lacks}; go on with `trt-cam evaluate --resume`")
        return cls(folder, identity, _json(folder / METRICS, ("threshold", "photos", "methods", "failed")))

    @property
    def paths(self) -> list[Path]:
        """The files of its batches."""
        count = -(-self.identity["data"]["photos"] // self.identity["batch_size"])
        return [self.folder / "parts" / f"{number:08d}.npz" for number in range(count)]

    @property
    def names(self) -> list[str]:
        """Of its methods."""
        return [str(method["name"]) for method in self.metrics["methods"]]

    @cached_property
    def results(self) -> list[Results]:
        """What its protocol knows of every photo, for each method."""
        kind = MaskResults if self.identity["protocol"] == "pxap" else LocalizationResults
        merged: list[Any] = []
        for path in self.paths:
            arrays = read_part(path)
            try:
                found = [from_arrays(arrays, number, kind) for number in range(len(self.names))]
            except (InputError, DatasetError) as error:
                raise DatasetError(f"{path} is damaged ({error}); delete it and go on with --resume") from None
            merged = merged or [one.from_head(one.head()) for one in found]
            for whole, one in zip(merged, found, strict=True):
                whole.merge(one)
        return merged

    @cached_property
    def tables(self) -> list[Any]:
        """All photos of each method."""
        return [one.table() for one in self.results]

    @property
    def headline(self) -> str:
        """The score that its protocol is known for, by the name under which scores stand side by side."""
        name = self.results[0].protocol.headline
        return "gt_known_50" if name == "maxboxacc" else name

    def sources(self) -> list[str]:
        """Where thresholds come from, as far as every method has figures there."""
        figures = [method["figures"] for method in self.metrics["methods"]]
        return [source for source in figures[0] if all(source in one for one in figures)]

    def thresholds(self, number: int, source: str) -> Thresholds:
        """Those of a method."""
        held = self.metrics["methods"][number]["figures"][source]["thresholds"]
        return Thresholds(held["source"], held["split"], tuple(held["one"]), tuple(held["every"]))

    def quality(self, number: int) -> NDArray[np.float64]:
        """How well a method does on each photo, (N,) in [0, 1].

        IoU of the one box at the threshold that the run reports; for masks the average precision of the photo's pixels.
        """
        results, table = self.results[number], self.tables[number]
        if isinstance(results, MaskResults):
            return np.array([average_precision(*pair) / 100 for pair in zip(table.true, table.false, strict=True)])
        tau = self.thresholds(number, self.metrics["threshold"]).one[1]
        found: NDArray[np.float64] = table.largest[:, position(results.thresholds, tau)]
        return found

    def parts(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What was kept of each batch; see `measuring.Measure.batch`."""
        return (read_part(path) for path in self.paths)


def _json(path: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in wanted if name not in found]
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}); make the run again") from None
    if missing or not isinstance(found, dict):
        raise DatasetError(
            f"{path} is damaged, or of no evaluation (it lacks {', '.join(missing) or 'an object'}); give the folder "
            "of a run of trt-cam evaluate"
        )
    return found
