"""All figures of evaluated photos, each with its protocol, its threshold, its interval, and what must be beaten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.metrics.baselines import square_ious
from trt_cam.metrics.choices import BOX, PERCENT, Thresholds, outcomes, outcomes_per_photo, position, resolve
from trt_cam.metrics.intervals import Figure, bootstrap
from trt_cam.metrics.localization import KINDS
from trt_cam.metrics.protocols import IOUS, Protocol
from trt_cam.metrics.records import BoxTable, LocalizationResults

Counts = Mapping[str, NDArray[np.integer]]  # name -> whole numbers (N,)


@dataclass(frozen=True)
class LocalizationFigures:
    """All figures at one kind of threshold; ``dataclasses.asdict`` gives what JSON can hold.

    Attributes
    ----------
    protocol, photos, thresholds
        What all rest on.
    headline
        Name of the score that the protocol is known for.
    scores : percent
        ``top1_cls, top5_cls, top1_loc, top5_loc`` (where there are logits); ``gt_known_30, _50, _70`` of one box, each
        at its own threshold, ``maxboxacc`` being another name of ``gt_known_50``; ``any_box_30, _50, _70`` of all
        contours, ``maxboxacc_v2`` their mean.
    boxes
        Mean number of contours at the thresholds of ``any_box``: more boxes are more chances.
    errors
        Photos of each kind, at the threshold of ``gt_known_50``: ``right``, ``cls_wrong`` (where there are logits), ...
    iou_histogram
        ``edges`` (21) of the IoU of that box, and photos in ``counts`` (20).
    curves
        Percent, and mean number of ``boxes``, at each of ``thresholds``.
    by_size
        ``photos``, scores and baselines of those whose largest object covers so much of the photo (`SIZES`); thresholds
        as for all, but squares of the best side among those.
    baselines : percent
        ``centred_square`` of the best side on these photos (its threshold is side / grid) and ``whole_image``, at each
        IoU and, ``_v2``, their mean.
    """

    protocol: str
    photos: int
    thresholds: Thresholds
    headline: str
    scores: dict[str, Figure]
    boxes: dict[str, Figure]
    errors: dict[str, int]
    iou_histogram: dict[str, list[float]]
    curves: dict[str, list[float]]
    by_size: dict[str, dict[str, Any]]
    baselines: dict[str, Figure]


def figures(
    results: LocalizationResults, threshold: float | str | Thresholds, *, draws: int = 1000, seed: int = 0
) -> LocalizationFigures:
    """All figures of evaluated photos.

    Parameters
    ----------
    threshold
        A number, fixed beforehand; "best", an oracle on these photos, one for each IoU; or what `search_threshold`
        found on another split.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    InputError
        The protocol does not take a threshold from there, or the photos were not evaluated at it.
    DatasetError
        There is no photo.
    """
    table = results.table()
    chosen = resolve(threshold, table, results)
    hits = outcomes(table, results, chosen)
    squares = square_ious(table, results.protocol.grid)
    at = position(results.thresholds, chosen.one[BOX])
    counts, edges = np.histogram(table.largest[:, at], np.arange(21) / 20)
    write = _Writer(results.protocol.name, chosen, draws, seed)
    return LocalizationFigures(
        protocol=results.protocol.name,
        photos=len(table),
        thresholds=chosen,
        headline=results.protocol.headline,
        scores=write.scores(hits),
        boxes=write.boxes(table, results.thresholds),
        errors=error_counts(table, at, results.protocol),
        iou_histogram={"edges": edges.tolist(), "counts": counts.tolist()},
        curves=curves(table, results.thresholds),
        by_size={name: write.group(rows, hits, squares) for name, rows in table.by_size().items()},
        baselines=write.baselines(squares),
    )


def error_counts(table: BoxTable, at: int, protocol: Protocol) -> dict[str, int]:
    """Photos of each kind of error at the threshold in position ``at``; a wrong class comes before all."""
    known = bool((table.classes[:, 0] >= 0).all())
    right = table.classes[:, 0] == table.label if known else np.ones(len(table), dtype=bool)
    numbers = np.bincount(table.kind[right, at], minlength=len(KINDS)).tolist()
    wrong = {"cls_wrong": int((~right).sum())} if known else {}
    return {KINDS[0]: numbers[0]} | wrong | dict(zip(KINDS[1:], numbers[1:], strict=True))


def curves(table: BoxTable, thresholds: NDArray[np.float64]) -> dict[str, list[float]]:
    """Scores at every threshold."""
    found = {"thresholds": thresholds, "boxes": table.count.mean(axis=0)}
    for name, iou in zip(PERCENT, IOUS, strict=True):
        found[f"gt_known_{name}"] = (table.largest >= iou).sum(axis=0) * 100 / len(table)
        found[f"any_box_{name}"] = (table.every >= iou).sum(axis=0) * 100 / len(table)
    return {name: values.tolist() for name, values in found.items()}


@dataclass(frozen=True)
class _Writer:
    """Means over photos as figures."""

    protocol: str
    chosen: Thresholds
    draws: int
    seed: int

    def scores(self, hits: Counts) -> dict[str, Figure]:
        one, every = (dict(zip(PERCENT, taus, strict=True)) for taus in (self.chosen.one, self.chosen.every))
        box = self.chosen.one[BOX]
        threshold: dict[str, Any] = {f"gt_known_{name}": tau for name, tau in one.items()}
        threshold |= {f"any_box_{name}": tau for name, tau in every.items()}
        threshold |= {"maxboxacc": box, "top1_loc": box, "top5_loc": box, "maxboxacc_v2": self.chosen.every}
        percents = {name: values * 100 for name, values in hits.items()}
        return self._figures(percents, threshold, self.chosen.source, self.chosen.split)

    def boxes(self, table: BoxTable, thresholds: NDArray[np.float64]) -> dict[str, Figure]:
        taus: dict[str, Any] = dict(zip(PERCENT, self.chosen.every, strict=True))
        counts = {name: table.count[:, position(thresholds, tau)] for name, tau in taus.items()}
        return self._figures(counts, taus, self.chosen.source, self.chosen.split)

    def baselines(self, squares: NDArray[np.float64]) -> dict[str, Figure]:
        """``squares`` (N, grid) as `square_ious`."""
        hits: dict[str, NDArray[np.integer]] = {}
        sides: dict[str, Any] = {}
        for name, iou in zip(PERCENT, IOUS, strict=True):
            good = squares >= iou
            best = int(good.sum(axis=0).argmax())
            sides[f"centred_square_{name}"] = (best + 1) / squares.shape[1]
            hits[f"centred_square_{name}"] = good[:, best] * 100
            hits[f"whole_image_{name}"] = good[:, -1] * 100
        sides["centred_square_v2"] = tuple(sides.values())
        for kind in ("centred_square", "whole_image"):
            hits[f"{kind}_v2"] = np.sum([hits[f"{kind}_{name}"] for name in PERCENT], axis=0)
        return self._figures(hits, sides, "best", "the photos reported")

    def group(self, rows: NDArray[np.bool_], hits: Counts, squares: NDArray[np.float64]) -> dict[str, Any]:
        if not rows.any():
            return {"photos": 0}
        scores = self.scores({name: values[rows] for name, values in hits.items()})
        return {"photos": int(rows.sum())} | scores | self.baselines(squares[rows])

    def _figures(self, values: Counts, threshold: dict[str, Any], source: str, split: str) -> dict[str, Figure]:
        """Whole numbers (N,) as their means."""
        N = len(next(iter(values.values())))
        columns = np.stack(list(values.values()), axis=1).astype(np.float64)  # (N, F), whole: sums are exact
        counts = np.array([N * outcomes_per_photo(name) for name in values])
        low, high = bootstrap(lambda drawn: drawn @ columns / counts, N, draws=self.draws, seed=self.seed)
        mean = columns.sum(axis=0) / counts
        return {
            name: Figure(
                float(mean[i]),
                float(low[i]),
                float(high[i]),
                N,
                self.protocol,
                source if name in threshold else None,
                split if name in threshold else None,
                threshold.get(name),
            )
            for i, name in enumerate(values)
        }
