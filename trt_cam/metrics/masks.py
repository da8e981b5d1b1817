"""PxAP: average precision of heat maps as classifiers of pixels, over all pixels of a data set.

Choe et al. (arXiv:2001.07437) and their code. Scores are not quantised; precision and recall come from histograms of
the scores on object and on background, which add up over photos and processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.accumulator import Accumulator, Table, checked_thresholds
from trt_cam.metrics.intervals import Figure, bootstrap
from trt_cam.metrics.protocols import GRID, get_protocol, threshold_list
from trt_cam.metrics.resizing import enlarge

IGNORED = 255  # pixels of a mask that count neither as object nor as background


@dataclass(frozen=True)
class MaskTable(Table):
    """N photos; ``share`` is of the pixels that are not ignored.

    Attributes
    ----------
    true, false : (N, T + 2) int64
        Pixels of object and of background in each bin of scores, ascending: from each of T thresholds to the next, a
        score of exactly 1, and an empty one.
    centre_true, centre_false : (N, T + 2) int64
        The same for a map that falls from the middle to the corners.
    """

    true: NDArray[np.int64]
    false: NDArray[np.int64]
    centre_true: NDArray[np.int64]
    centre_false: NDArray[np.int64]


@dataclass(frozen=True)
class MaskFigures:
    """``dataclasses.asdict`` gives what JSON can hold.

    Attributes
    ----------
    protocol, photos, headline
    scores : percent
        ``pxap``.
    curves
        ``precision`` and ``recall`` in [0, 1] from high scores to low; None where no pixel scores as high.
    by_size
        ``photos``, score and baselines of those whose object covers so much of the photo.
    baselines : percent
        ``centre`` of a map that falls from the middle to the corners, ``whole_image`` of a constant one.
    """

    protocol: str
    photos: int
    headline: str
    scores: dict[str, Figure]
    curves: dict[str, list[float | None]]
    by_size: dict[str, dict[str, Any]]
    baselines: dict[str, Figure]


class MaskResults(Accumulator[MaskTable]):
    """Histograms of every photo's scores, for PxAP.

    Parameters
    ----------
    thresholds : (T,), rising from 0 within [0, 1), or None
        Edges of the bins; None is the evaluator's list, 0, 0.01, ..., 0.99.

    Examples
    --------
    >>> results = MaskResults()
    >>> mask = evaluation_mask([np.eye(2)], size=2)
    >>> results.add(0, "a.jpg", np.array([[0.9, 0.2], [0.4, 0.6]]), mask)
    >>> mask_figures(results).scores["pxap"].value
    100.0
    """

    kind = MaskTable

    def __init__(self, thresholds: npt.ArrayLike | None = None) -> None:
        super().__init__()
        self.protocol = get_protocol("pxap")
        self.thresholds = checked_thresholds(threshold_list() if thresholds is None else thresholds)
        if self.thresholds[0] != 0:
            raise InputError(f"thresholds must start at 0, or low scores are lost, got {self.thresholds[0]:g}")

    def head(self) -> dict[str, NDArray[Any]]:
        """The thresholds."""
        return {"protocol": np.array(self.protocol.name), "thresholds": self.thresholds}

    @classmethod
    def from_head(cls, head: Mapping[str, NDArray[Any]]) -> Self:
        """An empty one with these settings."""
        if str(head["protocol"]) != "pxap":
            raise InputError(f"results of protocol 'pxap' were needed, got {str(head['protocol'])!r}")
        return cls(head["thresholds"])

    def add(self, index: int, name: str, heat: npt.ArrayLike, mask: npt.ArrayLike) -> None:
        """Measure one photo.

        Parameters
        ----------
        index
            Its place in the data set's list: the same in every process and for every method.
        name
            Its id in that list.
        heat : (H, W), in [0, 1]
            Of the labelled class: ``results.protocol.heat(class_map)``, or a stored score map.
        mask : (H, W) uint8
            Of the same size, from `evaluation_mask`.

        Raises
        ------
        InputError
            The map has NaN, values outside [0, 1] or another size than the mask.
        DatasetError
            The mask has other values, or the index was added before.
        """
        try:
            true, false = score_histograms(heat, mask, self.thresholds)
        except (InputError, DatasetError) as error:
            raise type(error)(f"photo {name}: {error}") from None
        centre_true, centre_false = score_histograms(_centre(np.shape(heat)), mask, self.thresholds)
        share = true.sum() / max(true.sum() + false.sum(), 1)
        row = MaskTable(
            index=np.array([index]),
            name=np.array([str(name)]),
            share=np.array([share]),
            true=true[None],
            false=false[None],
            centre_true=centre_true[None],
            centre_false=centre_false[None],
        )
        self._put(row)


def evaluation_mask(
    instances: Sequence[npt.ArrayLike], ignore: npt.ArrayLike | None = None, *, size: int = GRID
) -> NDArray[np.uint8]:
    """A photo's mask on the evaluator's grid, from masks at their own sizes.

    Parameters
    ----------
    instances
        (H, W) each, at least one; foreground above 0.5, so that of grey levels all but 0 are.
    ignore : (H, W) or None
        Pixels that count neither way, unless an instance has them.
    size : pixels
        Side of the grid.

    Returns
    -------
    (size, size) uint8
        1 object, 0 background, 255 ignored; the nearest pixel of each mask decides.

    Raises
    ------
    InputError
        A mask has another shape or no pixels.
    DatasetError
        There is no instance.
    """
    if not len(instances):
        raise DatasetError("a photo needs at least one instance mask, got none")
    masks = [enlarge(np.asarray(one), (size, size), "nearest") > 0.5 for one in instances]
    object_ = np.any(masks, axis=0)
    found = object_.astype(np.uint8)
    if ignore is not None:
        found[(enlarge(np.asarray(ignore), (size, size), "nearest") > 0.5) & ~object_] = IGNORED
    return found


def score_histograms(
    heat: npt.ArrayLike, mask: npt.ArrayLike, thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many pixels of object and of background score how much.

    Parameters
    ----------
    heat : (H, W), in [0, 1]
    mask : (H, W)
        1 object, 0 background, 255 ignored.
    thresholds : (T,)

    Returns
    -------
    true, false : (T + 2,) int64
        In ascending bins; see `MaskTable`.

    Raises
    ------
    InputError
        The map has NaN, values outside [0, 1] or another size than the mask.
    DatasetError
        The mask has other values.
    """
    heat, mask = np.asarray(heat), np.asarray(mask)
    if heat.shape != mask.shape or heat.ndim != 2 or not heat.size:
        raise InputError(f"heat and mask must be (H, W) of one size, got {heat.shape} and {mask.shape}")
    if not (np.issubdtype(heat.dtype, np.floating) and heat.min() >= 0 and heat.max() <= 1):  # false for NaN
        raise InputError(f"heat must be floats in [0, 1], got {heat.dtype} from {heat.min():g} to {heat.max():g}")
    if not np.isin(mask, (0, 1, IGNORED)).all():
        raise DatasetError(f"a mask must hold 0, 1 and {IGNORED} only, got {np.unique(mask)[:9].tolist()}")
    edges = np.concatenate([thresholds, [1.0, 2.0, 3.0]])
    scores = heat.astype(np.float64)
    true, false = (np.histogram(scores[mask == value], edges)[0].astype(np.int64) for value in (1, 0))
    return true, false


def precision_recall(true: NDArray[Any], false: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall from high scores to low, (T + 2,) each, from histograms (T + 2,) in ascending bins.

    Precision is NaN where no pixel scores as high, recall NaN everywhere where there is no object.
    """
    hits, misses = true[::-1].cumsum(), false[::-1].cumsum()
    with np.errstate(invalid="ignore"):
        return hits / (hits + misses), hits / hits[-1]


def average_precision(true: NDArray[Any], false: NDArray[Any]) -> float:
    """PxAP in percent of histograms (T + 2,): the sum of P_k (R_k - R_k-1), no interpolation; NaN without an object."""
    precision, recall = precision_recall(true, false)
    steps = precision[1:] * np.diff(recall)
    return float(steps[~np.isnan(precision[1:])].sum() * 100)


def mask_figures(results: MaskResults, *, draws: int = 1000, seed: int = 0) -> MaskFigures:
    """PxAP of a data set, with its interval, its baselines, and by size of the object.

    Parameters
    ----------
    draws, seed
        Of the bootstrap.

    Raises
    ------
    DatasetError
        There is no photo, or no pixel of an object in any.
    """
    table = results.table()
    if not table.true.any():
        raise DatasetError(f"PxAP needs object pixels, got none in {len(table)} photos; look at their masks")
    precision, recall = precision_recall(table.true.sum(axis=0), table.false.sum(axis=0))
    scores, baselines = _figures(table, draws, seed)
    return MaskFigures(
        protocol=results.protocol.name,
        photos=len(table),
        headline="pxap",
        scores=scores,
        curves={
            "precision": [None if np.isnan(value) else float(value) for value in precision],
            "recall": recall.tolist(),
        },
        by_size={name: _group(table.take(rows), draws, seed) for name, rows in table.by_size().items()},
        baselines=baselines,
    )


def _group(table: MaskTable, draws: int, seed: int) -> dict[str, Any]:
    if not table.true.any():
        return {"photos": len(table)}
    scores, baselines = _figures(table, draws, seed)
    return {"photos": len(table)} | scores | baselines


def _figures(table: MaskTable, draws: int, seed: int) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Score and baselines."""
    parts = (table.true, table.false, table.centre_true, table.centre_false)
    columns = np.concatenate(parts, axis=1).astype(np.float64)  # whole numbers: sums are exact

    def statistic(drawn: NDArray[np.float64]) -> list[float]:
        true, false, centre_true, centre_false = np.split(drawn @ columns, 4)
        whole = 100 * true.sum() / (true.sum() + false.sum()) if true.any() else np.nan
        return [average_precision(true, false), average_precision(centre_true, centre_false), whole]

    value = statistic(np.ones(len(table)))
    low, high = bootstrap(statistic, len(table), draws=draws, seed=seed)
    pxap, centre, whole = (Figure(float(value[i]), float(low[i]), float(high[i]), len(table), "pxap") for i in range(3))
    return {"pxap": pxap}, {"centre": centre, "whole_image": whole}


@lru_cache(maxsize=4)
def _centre(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Falls from the middle of a map, almost 1, to its corners, 0."""
    down, across = ((np.arange(side) - (side - 1) / 2) / side for side in shape)
    distance = np.hypot(down[:, None], across[None, :])
    return 1 - distance / (distance.max() or 1)
