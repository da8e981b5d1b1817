"""How far a figure would move with other photos: the bootstrap over photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.ops._checks import check_count

LEVEL = (2.5, 97.5)  # percentiles
_AT_ONCE = 16_384  # numbers


@dataclass(frozen=True)
class Figure:
    """One number, the 95 % interval of the bootstrap over photos, and what it rests on.

    ``threshold`` is None where none was used, and one for each IoU where the figure is a mean over IoUs, ``source`` how
    it was found and ``split`` on which photos. The interval keeps it: what choosing it anew would change, it does not
    tell.
    """

    value: float
    low: float
    high: float
    photos: int
    protocol: str
    source: str | None = None
    split: str | None = None
    threshold: float | tuple[float, ...] | None = None


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], Any], photos: int, *, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """The 95 % interval of a statistic of photos, by the percentiles of its values on photos drawn with replacement.

    Parameters
    ----------
    statistic
        From how often each photo was drawn, (photos,) whole numbers of mean 1, to one number or (F,).
    photos
        How many there are, at least 1.
    draws, seed
        How often as many photos are drawn, and the seed of the random numbers.

    Returns
    -------
    (2,) or (2, F) float64
        Low and high end; draws whose statistic is NaN are left out.

    Raises
    ------
    InputError
        ``photos`` or ``draws`` is not at least 1.
    """
    check_count(photos, "photos", 1)
    check_count(draws, "draws", 1)
    found = [statistic(drawn) for drawn in _drawn(photos, draws, np.random.default_rng(seed))]
    return np.nanpercentile(np.array(found), LEVEL, axis=0)


def _drawn(photos: int, draws: int, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often each photo was drawn, (photos,), as many times as there are draws; of few photos many draws at once."""
    most = max(1, _AT_ONCE // photos)
    for start in range(0, draws, most):
        n = min(most, draws - start)
        chosen = generator.integers(0, photos, (n, photos)) + photos * np.arange(n)[:, None]
        yield from np.bincount(chosen.ravel(), minlength=n * photos).reshape(n, photos).astype(np.float64)
