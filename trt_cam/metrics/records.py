"""What a protocol needs to know of every photo whose boxes it compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from trt_cam.data.audit import SLACK
from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.accumulator import Accumulator, Table, checked_thresholds
from trt_cam.metrics.localization import TOP, overlaps, top_classes
from trt_cam.metrics.protocols import Protocol, get_protocol, scale_boxes, threshold_list


@dataclass(frozen=True)
class BoxTable(Table):
    """N photos at T thresholds.

    Attributes
    ----------
    label : (N,) int64
    classes : (N, 5) int64
        Predicted, best first; -1 where unknown.
    largest, every, kind, count : (N, T)
        As `localization.Overlaps`.
    boxes : (N,) int64
        Number of ground-truth boxes.
    truth : (sum of boxes, 4) int64
        The boxes on the protocol's grid, one photo's after another's.
    """

    label: NDArray[np.int64]
    classes: NDArray[np.int64]
    largest: NDArray[np.float64]
    every: NDArray[np.float64]
    kind: NDArray[np.uint8]
    count: NDArray[np.int32]
    boxes: NDArray[np.int64]
    truth: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The photos where ``rows`` (N,) is True."""
        return self._cut(rows, np.repeat(rows, self.boxes))

    def split(self) -> Iterator[Self]:
        """One table for each photo."""
        ends = self.boxes.cumsum()
        for row, end in enumerate(ends):
            yield self._cut(slice(row, row + 1), slice(end - self.boxes[row], end))

    def _cut(self, rows: Any, truth: Any) -> Self:
        names = [field.name for field in fields(self)]
        return type(self)(**{name: getattr(self, name)[truth if name == "truth" else rows] for name in names})


class LocalizationResults(Accumulator[BoxTable]):
    """What a protocol needs to know of every photo, for all its figures.

    Parameters
    ----------
    protocol
        A name, or what `get_protocol` made.
    thresholds : (T,), rising within [0, 1), or None
        Shares of a map's maximum; None is the evaluators' list, 0, 0.01, ..., 0.99. A photo takes 21 bytes for each.

    Examples
    --------
    >>> results = LocalizationResults("maxboxacc_v2")
    >>> heat = results.protocol.heat(np.eye(14))
    >>> results.add(0, "a.jpg", heat, [[0, 0, 99, 79]], size=(80, 100), label=1, logits=[0.1, 2.0])
    >>> results.table().classes.tolist()
    [[1, 0, -1, -1, -1]]
    """

    kind = BoxTable

    def __init__(self, protocol: str | Protocol, thresholds: npt.ArrayLike | None = None) -> None:
        super().__init__()
        self.protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
        if self.protocol.headline == "pxap":
            raise InputError("protocol 'pxap' is measured on masks: use MaskResults")
        self.thresholds = checked_thresholds(threshold_list() if thresholds is None else thresholds)

    def head(self) -> dict[str, NDArray[Any]]:
        """Protocol, grid and thresholds."""
        name, grid = np.array(self.protocol.name), np.array(self.protocol.grid)
        return {"protocol": name, "grid": grid, "thresholds": self.thresholds}

    @classmethod
    def from_head(cls, head: Mapping[str, NDArray[Any]]) -> Self:
        """An empty one with these settings."""
        return cls(get_protocol(str(head["protocol"]), size=int(head["grid"])), head["thresholds"])

    def add(
        self,
        index: int,
        name: str,
        heat: npt.ArrayLike,
        boxes: npt.ArrayLike,
        *,
        size: tuple[int, int],
        label: int,
        logits: npt.ArrayLike | None = None,
    ) -> None:
        """Measure one photo.

        Parameters
        ----------
        index
            Its place in the data set's list: the same in every process and for every method.
        name
            Its id in that list.
        heat : (h, w), in [0, 1]
            Of the labelled class: ``results.protocol.heat(class_map)``, or a score map that wsolevaluation stored.
            Top-1 and Top-5 Loc need no other: where they find the class, it is the labelled one.
        boxes : (M, 4)
            Ground truth in pixels of the photo, as the benchmark's list holds it, ``x0, y0, x1, y1``.
        size : (H, W)
            Of the photo that the boxes refer to.
        label
            From 0.
        logits : (K,) or None
            For the figures that count classes; all photos have them or none has.

        Raises
        ------
        InputError
            The map has NaN or values outside [0, 1], the logits are not finite, or ``size`` is none, as of a `Sample`
            whose list does not hold it.
        DatasetError
            No ground truth, a box inverted or outside the photo, a label without a logit, or an index added before.
        """
        corners = _checked_boxes(boxes, size, name)
        _check_label(label, logits, name)
        truth = scale_boxes(corners, size, self.protocol)
        try:
            found = overlaps(heat, truth, self.protocol, self.thresholds)
            classes = np.full(TOP, -1) if logits is None else top_classes(logits)
        except InputError as error:
            raise InputError(f"photo {name}: {error}") from None
        covered = (corners[:, 2:] - corners[:, :2]).prod(axis=1) / (size[0] * size[1])
        row = BoxTable(
            index=np.array([index]),
            name=np.array([str(name)]),
            share=np.array([min(covered.max(), 1.0)]),
            label=np.array([label]),
            classes=classes[None],
            largest=found.largest[None],
            every=found.every[None],
            kind=found.kind[None],
            count=found.count[None].astype(np.int32),
            boxes=np.array([len(truth)]),
            truth=truth,
        )
        self._put(row)

    def table(self) -> BoxTable:
        """All photos; DatasetError where there is none, or some have logits and others not."""
        table = super().table()
        known = table.classes[:, 0] >= 0
        if known.any() != known.all():
            raise DatasetError(f"{known.sum()} of {len(known)} photos have logits; add them to all photos or to none")
        return table


def _checked_boxes(boxes: npt.ArrayLike, size: tuple[int, int] | None, name: str) -> NDArray[np.float64]:
    """(M, 4), corners in order and within the photo."""
    if size is None or len(size) != 2 or min(size) < 1:
        raise InputError(f"size must be (height, width), got {size!r} for photo {name}; take that of its picture")
    corners = np.asarray(boxes, dtype=np.float64)
    if corners.size == 0:
        raise DatasetError(f"photo {name} has no ground-truth box; complete its list or leave it out of the split")
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise DatasetError(f"boxes must be (M, 4), got {corners.shape} for photo {name}")
    H, W = size
    inside = (corners[:, :2] >= -SLACK) & (corners[:, 2:] <= np.array([W, H]) + SLACK)  # false for NaN
    good = inside.all(axis=1)
    good &= (corners[:, :2] <= corners[:, 2:]).all(axis=1)
    if not good.all():
        raise DatasetError(
            f"boxes must be 0 <= x0 <= x1 <= {W}, 0 <= y0 <= y1 <= {H}, got {corners[~good][0].tolist()} for photo "
            f"{name} of {W} x {H} pixels"
        )
    return corners


def _check_label(label: int | None, logits: npt.ArrayLike | None, name: str) -> None:
    if label is None or label < 0 or (logits is not None and label >= np.size(logits)):
        upper = "" if logits is None else f" to {np.size(logits) - 1}, as its logits"
        raise DatasetError(f"labels must run from 0{upper}, got {label} for photo {name}")
