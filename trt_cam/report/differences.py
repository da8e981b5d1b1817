"""Every two methods on the same photos, all drawn together: as ``metrics.paired`` finds them one by one."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.metrics.choices import outcomes, outcomes_per_photo
from trt_cam.metrics.intervals import bootstrap
from trt_cam.metrics.masks import MaskTable, average_precision
from trt_cam.metrics.records import LocalizationResults
from trt_cam.report.recorded import Recorded

SCORES = ("gt_known_50", "gt_known_70")  # beside the protocol's headline


def differences(run: Recorded, source: str) -> dict[str, list[list[Any]]]:
    """First minus second of every two methods, at thresholds from one source.

    Returns
    -------
    dict
        For each score rows of the first method's number, the second's, difference, low and high end of the 95 %
        interval in percent, photos won and photos lost; the last two are None for PxAP, which a photo has no share in.
    """
    if len(run.results) < 2:
        return {}
    if isinstance(run.tables[0], MaskTable):
        return {"pxap": _of_masks(run.tables)}
    hits = [
        outcomes(table, results, run.thresholds(number, source))
        for number, (table, results) in enumerate(zip(run.tables, run.results, strict=True))
        if isinstance(results, LocalizationResults)
    ]
    scores = dict.fromkeys((*SCORES, run.headline))
    return {score: _of_boxes(np.stack([one[score] for one in hits]), score) for score in scores}


def _of_boxes(hits: NDArray[np.int64], score: str) -> list[list[Any]]:
    """``hits`` (methods, N): what each photo adds to a score."""
    N = hits.shape[1]
    first, second = _pairs(len(hits))
    columns = hits.T.astype(np.float64)  # (N, methods), whole: sums are exact
    unit = 100 / N / outcomes_per_photo(score)

    def statistic(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = drawn @ columns
        return (sums[first] - sums[second]) * unit

    value, (low, high) = statistic(np.ones(N)), bootstrap(statistic, N)
    won = [int((hits[i] > hits[j]).sum()) for i, j in zip(first, second, strict=True)]
    lost = [int((hits[i] < hits[j]).sum()) for i, j in zip(first, second, strict=True)]
    return _rows(first, second, value, low, high, won, lost)


def _of_masks(tables: list[MaskTable]) -> list[list[Any]]:
    N = len(tables[0])
    first, second = _pairs(len(tables))
    counts = [(table.true.astype(np.float64), table.false.astype(np.float64)) for table in tables]

    def statistic(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        score = np.array([average_precision(drawn @ true, drawn @ false) for true, false in counts])
        return score[first] - score[second]

    value, (low, high) = statistic(np.ones(N)), bootstrap(statistic, N)
    nobody = [None] * len(first)
    return _rows(first, second, value, low, high, nobody, nobody)


def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the first and of the second method of every two."""
    found = np.array(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _rows(first: Any, second: Any, value: Any, low: Any, high: Any, *counts: list[Any]) -> list[list[Any]]:
    ends = [np.round(one, 3).tolist() for one in (value, low, high)]
    return [list(row) for row in zip(first.tolist(), second.tolist(), *ends, *counts, strict=True)]
