"""A map of grey levels as a small graph: hills, and the heights at which they touch.

The rows, one after the other, are cut in the valleys into hills: each rises to its top and falls again. Above any level
a hill's pixels are next to each other, so they lie in one region, and the regions at all levels are those of the graph
whose nodes are the hills: a hill is there up to its top's grey level, a link up to its weight. A region's rows are
those of its hills. Its columns are those of the tops of columns' hills that lie in it: down a column, too, a region's
pixels are next to the top of their hill. So a smooth map of 50,000 pixels comes down to some thousand hills, links and
tops, or spots.

A link as high as the lower of its two hills says that the lower one is never a region apart. One such link of a hill
becomes its parent; the other links are listed.

``by_arrays`` and ``by_loops`` return the same graph (their parents and links may differ): the first for numpy, the
second for numba, which needs none of numpy's passes over the map. A frame of one pixel lies around the map, darker than
all that counts, or, as the outside of holes, brighter than all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ONE, _ZERO = np.uint8(1), np.uint8(0)


class Hills(NamedTuple):
    """S hills of a framed map, positions in reading order.

    ``starts`` and ``tops`` (S,): first pixel and a highest one; ``hill_at`` (pixels,): each pixel's hill; ``parents``
    (S,): a hill that each is part of wherever it is, itself if none; ``spots`` (P,): tops of rows' and columns' hills;
    ``weights``, ``ones``, ``others`` (E,): links, the grey level up to which two hills touch.
    """

    starts: Array
    tops: Array
    hill_at: Array
    parents: Array
    spots: Array
    weights: Array
    ones: Array
    others: Array


def by_arrays(framed: Array, corners: bool) -> Hills:
    """Hills by passes of numpy over the whole map; ``corners``: pixels that touch at a corner touch."""
    grey, width = framed.ravel(), framed.shape[1]
    starts, tops = _cut_by_arrays(grey)
    hill_at = np.repeat(np.arange(len(starts)), np.diff(starts, append=grey.size))  # (pixels,)
    rows, columns = np.divmod(_cut_by_arrays(framed.T.ravel())[1], len(framed))[::-1]
    spots = np.concatenate([tops, rows * width + columns])
    links = [(grey[starts[1:] - 1], hill_at[starts[1:] - 1], hill_at[starts[1:]]), _below(grey, width, starts, hill_at)]
    if corners:
        links += _across(grey, width, hill_at)
    weights, ones, others = (np.concatenate(part) for part in zip(*links, strict=True))
    height = grey[tops]
    lower = np.where(height[ones] < height[others], ones, others)  # of equals the later one: no circles
    never_apart = weights == height[lower]
    parents = np.arange(len(starts))
    parents[lower[never_apart]] = (ones + others - lower)[never_apart]
    while not np.array_equal(parents, further := parents[parents]):
        parents = further
    ones, others = parents[ones], parents[others]
    left = (ones != others) & (weights > 0)
    return Hills(starts, tops, hill_at, parents, spots, weights[left], ones[left], others[left])


def _cut_by_arrays(grey: Array) -> tuple[Array, Array]:
    change = np.flatnonzero(grey[1:] != grey[:-1])
    rises = np.concatenate([[True], grey[1:][change] > grey[change], [False]])  # up to the first hill, down at the end
    change = np.concatenate([[0], change + 1])
    starts = change[1:][rises[1:-1] & ~rises[:-2]]
    return np.concatenate([[0], starts]), change[rises[:-1] & ~rises[1:]]


def _below(grey: Array, width: int, starts: Array, hill_at: Array) -> tuple[Array, Array, Array]:
    """Links to the next row: between two borders of hills, in this row or the next, the pair is the same."""
    border = np.zeros(grey.size, dtype=bool)
    border[starts] = True
    at = np.flatnonzero(border[:-width] | border[width:])
    return np.maximum.reduceat(np.minimum(grey[:-width], grey[width:]), at), hill_at[at], hill_at[at + width]


def _across(grey: Array, width: int, hill_at: Array) -> list[tuple[Array, Array, Array]]:
    """Links at corners of four pixels, where the other two pixels are darker than both: elsewhere they add nothing."""
    corner = grey[: -width - 1], grey[1:-width], grey[width:-1], grey[width + 1 :]
    found = []
    for (one, other), (a, b) in (((0, 3), (1, 2)), ((1, 2), (0, 3))):
        weight = np.minimum(corner[one], corner[other])
        at = np.flatnonzero(weight > np.maximum(corner[a], corner[b]))
        steps = (0, 1, width, width + 1)
        found.append((weight[at], hill_at[at + steps[one]], hill_at[at + steps[other]]))
    return found


def by_loops(framed: Array, corners: bool) -> Hills:
    """Hills by loops over pixels, to be compiled; ``corners``: pixels that touch at a corner touch."""
    grey, width = framed.ravel(), framed.shape[1]
    starts, tops, hill_at = cut(grey)  # (S,), (S,), (pixels,)
    parents = np.arange(len(starts)).astype(np.int32)
    spots = np.concatenate((tops, column_tops(framed)))
    crossing = crossings(framed) if corners else np.empty(0, np.int32)
    links = np.empty((3, 3 * len(starts) + len(crossing)), np.int32)
    n = 0
    for hill in range(1, len(starts)):
        n = join(grey[starts[hill] - 1], hill - 1, hill, grey, tops, parents, links, n)
    n = join_below(grey, width, starts, tops, parents, links, n)
    for at in crossing:
        if min(grey[at], grey[at + width + 1]) > grey[at + 1]:
            one, other = at, at + width + 1
        else:
            one, other = at + 1, at + width
        n = join(min(grey[one], grey[other]), hill_at[one], hill_at[other], grey, tops, parents, links, n)
    return Hills(starts, tops, hill_at, parents, spots, links[0, :n].astype(np.uint8), links[1, :n], links[2, :n])


def cut(grey: Array) -> tuple[Array, Array, Array]:
    """``starts``, ``tops`` and ``hill_at`` of a sequence of pixels."""
    starts, tops = np.empty(len(grey) // 2 + 1, np.int32), np.empty(len(grey) // 2 + 1, np.int32)
    hill_at = np.empty(len(grey), np.int32)
    starts[0] = tops[0] = hill_at[0] = 0
    hill, falls, last = 0, False, grey[0]
    for at in range(1, len(grey)):
        now = grey[at]
        if now > last:
            if falls:
                hill += 1
                starts[hill] = at
                falls = False
            tops[hill] = at
        elif now < last:
            falls = True
        hill_at[at] = hill
        last = now
    return starts[: hill + 1], tops[: hill + 1], hill_at


def column_tops(framed: Array) -> Array:
    """Positions of the last pixels of the tops of the columns' hills, in reading order."""
    height, width = framed.shape
    found, n = np.empty(width * (height // 2 + 1), np.int32), 0
    falls, top = np.zeros(width, np.uint8), np.zeros((width + 7) // 8 * 8, np.uint8)
    for y in range(height - 1):  # what rises to the last row ends in the frame: no region's column
        here, below = framed[y], framed[y + 1]
        for x in range(width):  # branchless in 8 bits: 32 columns an instruction
            now_falls = np.uint8(below[x] < here[x])
            top[x] = now_falls & (falls[x] ^ _ONE)
            falls[x] = (falls[x] | now_falls) & np.uint8(below[x] <= here[x])
        n = note(top, y * width, found, n)
    return found[:n]


def crossings(framed: Array) -> Array:
    """Upper left positions of four pixels, two across a corner brighter than the other two, in reading order."""
    height, width = framed.shape
    found, n = np.empty(width, np.int32), 0
    here = np.zeros((width + 6) // 8 * 8, np.uint8)
    for y in range(height - 1):
        a, b, c, d = framed[y, :-1], framed[y, 1:], framed[y + 1, :-1], framed[y + 1, 1:]
        for x in range(width - 1):
            here[x] = np.uint8(min(a[x], d[x]) > max(b[x], c[x])) | np.uint8(min(b[x], c[x]) > max(a[x], d[x]))
        while n + width > len(found):
            found = np.concatenate((found, np.empty_like(found)))
        n = note(here, y * width, found, n)
    return found[:n]


def note(flags: Array, offset: int, found: Array, n: int) -> int:
    """Add the places of flags that are set to ``n`` noted ones; most are not, so eight are passed over at once."""
    eights = flags.view(np.uint64)
    for eight in range(len(eights)):
        if eights[eight]:
            for x in range(8 * eight, 8 * eight + 8):
                if flags[x]:
                    found[n] = offset + x
                    n += 1
    return n


def join_below(grey: Array, width: int, starts: Array, tops: Array, parents: Array, links: Array, n: int) -> int:
    """Links to the next row: between two borders of hills, in this row or the next, the pair is the same."""
    one, other, at, end = 0, 0, 0, len(grey) - width
    while other + 1 < len(starts) and starts[other + 1] <= width:
        other += 1
    while at < end:
        stop = end
        if one + 1 < len(starts):
            stop = min(stop, starts[one + 1])
        if other + 1 < len(starts):
            stop = min(stop, starts[other + 1] - width)
        here, below, weight = grey[at:stop], grey[at + width : stop + width], _ZERO
        for x in range(len(here)):
            weight = max(weight, min(here[x], below[x]))
        n = join(weight, one, other, grey, tops, parents, links, n)
        at = stop
        if one + 1 < len(starts) and at == starts[one + 1]:
            one += 1
        if other + 1 < len(starts) and at == starts[other + 1] - width:
            other += 1
    return n


def join(weight: Any, one: Any, other: Any, grey: Array, tops: Array, parents: Array, links: Array, n: int) -> int:
    """Make a link the lower hill's parent if it can be, else the ``n``th of ``links``; how many there are then."""
    lower, higher = other, one  # of equals the later one: no circles
    if grey[tops[one]] < grey[tops[other]]:
        lower, higher = one, other
    if weight == grey[tops[lower]] and parents[lower] == lower:
        parents[lower] = higher
    elif weight > 0 and one != other:
        links[0, n], links[1, n], links[2, n] = weight, one, other
        n += 1
    return n
