"""Two methods on the same photos: by how much one is better, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.accumulator import Table
from trt_cam.metrics.choices import Thresholds, best_thresholds, outcomes, outcomes_per_photo, resolve
from trt_cam.metrics.intervals import bootstrap
from trt_cam.metrics.masks import MaskResults, average_precision
from trt_cam.metrics.records import BoxTable, LocalizationResults

Choice = float | str | Thresholds


@dataclass(frozen=True)
class Difference:
    """First minus second in percent, and its 95 % interval over the same photos.

    Attributes
    ----------
    value, low, high : percent
    photos, protocol, score
    source
        Where the thresholds came from; "first, second" where the two differ; None where there is none.
    thresholds
        Of the first and of the second, each of one choice, or of two halves where they were cross-fitted.
    won, lost
        Photos on which the first is better and worse; None for PxAP, which a photo has no share in.
    """

    value: float
    low: float
    high: float
    photos: int
    protocol: str
    score: str
    source: str | None = None
    thresholds: tuple[tuple[Thresholds, ...], ...] = ()
    won: int | None = None
    lost: int | None = None


def paired(
    first: LocalizationResults,
    second: LocalizationResults,
    threshold: Choice | tuple[Choice, Choice],
    *,
    score: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """The difference of two methods, photos drawn in pairs.

    Parameters
    ----------
    first, second
        Of one protocol and the same photos.
    threshold
        As `figures`, one for both or one for each; or "cross-fit": for photos of even index the best ones of the odd,
        for the odd the best of the even, so that no photo chooses its own and none is lost.
    score
        One of the scores of `figures`; the protocol's headline by default.
    draws, seed
        Of the bootstrap.

    Raises
    ------
    DatasetError
        The photos differ.
    InputError
        The protocols differ, there is no such score, or the threshold is not to be had.
    """
    if first.protocol != second.protocol:
        ours, theirs = (f"{each.name} on {each.grid} pixels" for each in (first.protocol, second.protocol))
        raise InputError(f"two methods under one protocol were needed, got {ours} and {theirs}")
    one, two = first.table(), second.table()
    _check_same_photos(one, two)
    choices = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    chosen, others = _chosen(first, one, choices[0]), _chosen(second, two, choices[1])
    hits, other_hits = _hits(first, one, chosen), _hits(second, two, others)
    name = score or first.protocol.headline
    if name not in hits or name not in other_hits:
        both = [one for one in hits if one in other_hits]
        raise InputError(f"score must be one of {', '.join(both)}, got {name!r}")
    difference = (hits[name] - other_hits[name]).astype(np.float64)
    unit = 100 / len(one) / outcomes_per_photo(name)
    low, high = bootstrap(lambda drawn: drawn @ difference * unit, len(one), draws=draws, seed=seed)
    return Difference(
        value=float(difference.sum() * unit),
        low=float(low),
        high=float(high),
        photos=len(one),
        protocol=first.protocol.name,
        score=name,
        source=", ".join(dict.fromkeys(_source(each) for each in (chosen, others))),
        thresholds=(chosen, others),
        won=int((difference > 0).sum()),
        lost=int((difference < 0).sum()),
    )


def paired_masks(first: MaskResults, second: MaskResults, *, draws: int = 1000, seed: int = 0) -> Difference:
    """The difference of two methods' PxAP, photos drawn in pairs; arguments and errors as `paired`."""
    one, two = first.table(), second.table()
    _check_same_photos(one, two)
    if not np.array_equal(first.thresholds, second.thresholds):
        raise InputError("two methods at the same thresholds were needed, got differing lists")
    if not (one.true.any() and np.array_equal(one.true.sum(axis=1), two.true.sum(axis=1))):
        raise DatasetError("two methods on the same masks were needed, with object pixels, got others or none")

    def difference(drawn: NDArray[np.float64]) -> float:
        return average_precision(drawn @ one.true, drawn @ one.false) - average_precision(
            drawn @ two.true, drawn @ two.false
        )

    low, high = bootstrap(difference, len(one), draws=draws, seed=seed)
    return Difference(difference(np.ones(len(one))), float(low), float(high), len(one), "pxap", "pxap")


def _chosen(results: LocalizationResults, table: BoxTable, choice: Choice) -> tuple[Thresholds, ...]:
    """One choice for all photos, or one for the even and one for the odd."""
    if choice != "cross-fit":
        return (resolve(choice, table, results),)
    if "from-val" not in results.protocol.sources:
        raise InputError(f"protocol {results.protocol.name!r} takes a fixed threshold, got 'cross-fit'")
    odd = table.index % 2 == 1
    if odd.all() or not odd.any():
        raise DatasetError("cross-fitting needs photos of even and of odd index, got one kind only")
    return tuple(
        best_thresholds(table.take(rows), results.thresholds, "from-val", f"photos of {name} index")
        for name, rows in (("odd", odd), ("even", ~odd))
    )


def _hits(
    results: LocalizationResults, table: BoxTable, chosen: tuple[Thresholds, ...]
) -> dict[str, NDArray[np.int64]]:
    even, odd = outcomes(table, results, chosen[0]), outcomes(table, results, chosen[-1])
    return {name: np.where(table.index % 2 == 1, odd[name], even[name]) for name in even}


def _source(chosen: tuple[Thresholds, ...]) -> str:
    return chosen[0].source if len(chosen) == 1 else "cross-fit"


def _check_same_photos(one: Table, two: Table) -> None:
    if len(one) != len(two) or (one.index != two.index).any() or (one.name != two.name).any():
        differing = set(zip(one.index.tolist(), one.name.tolist(), strict=True)) ^ set(
            zip(two.index.tolist(), two.name.tolist(), strict=True)
        )
        raise DatasetError(
            f"two methods on the same photos were needed, got {len(one)} and {len(two)}, of which {min(differing)} and "
            f"others are in one only"
        )
