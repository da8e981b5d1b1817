"""Regions of a map at many levels in one sweep from bright to dark.

A region only grows as the level falls, and two that touch become one: a forest over the hills of ``_hills``, whose
trees are joined at the weights of their links. Where only the largest region is wanted, an outline is measured only if
the regions' boxes leave a doubt: it encloses at most the box through the border pixels' centres, and at least what it
enclosed at any higher level.

All but ``regions`` and ``compiled`` run as they stand, on lists, or compiled by numba, on arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.ops import _hills

Array = NDArray[Any]


def regions(framed: Array, levels: Array, *, corners: bool, largest: bool) -> tuple[Array, Array, Array]:
    """Every region of pixels at or above every level, or for each level the one with the largest outline.

    Parameters
    ----------
    framed : (H, W) uint8
        A map in a frame of one pixel, which is darker than all levels or brighter than all.
    levels : (L,)
        Grey levels from 1 up, in falling order.
    corners : whether two pixels touch that have only a corner in common
    largest : of equals, the region that starts last in reading order

    Returns
    -------
    level : (R,)
        Level of each region, in falling order.
    start : (R,)
        Grows with the place of the region's first pixel in reading order; 0 for the region of a bright frame.
    boxes : (R, 4) int64
        x0, y0, x1, y1 in the framed map, far edge exclusive.
    """
    loops = compiled()
    hills = (loops[0] if loops else _hills.by_arrays)(framed, corners)
    grey, width, count = framed.ravel(), framed.shape[1], len(hills.starts)
    rows = hills.tops // width
    spots = hills.spots[np.argsort(255 - grey[hills.spots], kind="stable")]  # stable: a radix sort
    order = np.argsort(255 - hills.weights, kind="stable")
    events = (spots, hills.hill_at[spots], hills.weights[order], hills.ones[order], hills.others[order])
    ground = (grey, hills.starts, rows, *_compass(width))
    state = (hills.parents, *(np.full(count, value) for value in (count, -1, width, -1, 0, 0, 0)))
    if loops:
        found = loops[1](levels, events, ground, state, width, largest)
    else:
        found = sweep(levels.tolist(), _plain(events), _plain(ground), _plain(state), width, largest)
    level, first, last, left, right = found.T
    return level, first, np.stack([left, rows[first], right + 1, rows[last] + 1], axis=1).astype(np.int64)


def _compass(width: int) -> tuple[Array, Array, Array]:
    """East, north-east and so on, counterclockwise, two rounds: as steps of position, of column and of row."""
    rights, downs = np.array([1, 1, 0, -1, -1, -1, 0, 1] * 2), np.array([0, -1, -1, -1, 0, 1, 1, 1] * 2)
    return downs * width + rights, rights, downs


def _plain(arrays: tuple[Array, ...]) -> list[Any]:
    """What Python reads one by one much sooner than arrays."""
    return [one.tobytes() if one.dtype == np.uint8 else one.tolist() for one in arrays]


@cache
def compiled() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """``_hills.by_loops`` and ``sweep`` by numba, or None where it is not installed (the extra ``fast``)."""
    try:
        from numba import njit
        from numba.extending import register_jitable
    except ImportError:
        return None
    inner = (_hills.cut, _hills.column_tops, _hills.crossings, _hills.note, _hills.join_below, _hills.join)
    for function in (*inner, find, unite, choose, bound, measure, outline):
        register_jitable(function)
    try:
        jit = njit(cache=True, nogil=True)
        return jit(_hills.by_loops), jit(sweep)
    except RuntimeError:  # no folder to keep the compiled code in
        jit = njit(nogil=True)
        return jit(_hills.by_loops), jit(sweep)


def sweep(levels: Any, events: Any, ground: Any, state: Any, width: int, largest: bool) -> Array:
    """(R, 5) int32: level, first and last hill, left and right column of each region.

    Parameters
    ----------
    levels : (L,), in falling order
    events : five sequences
        Spots from bright to dark and their hills; links by falling weight: the weight, one hill, the other.
    ground : six sequences
        The map's pixels; first pixel and row of each hill; the eight directions, thrice.
    state : eight sequences, one entry per hill
        The forest, and of each root: first and last hill, left and right column (negative: not there yet), an area that
        its outline encloses at least; last the list of roots that are there, and each root's place in it.
    """
    spots, owners, weights, ones, others = events
    parents, first, last, left, right, _, live, place = state
    found, n = np.empty((256, 5), np.int32), 0
    count = spot = link = 0
    for level in levels:
        while spot < len(spots) and ground[0][spots[spot]] >= level:
            hill, x = owners[spot], spots[spot] % width
            region = find(parents, hill)
            if right[region] < 0:
                live[count], place[region] = region, count
                count += 1
            first[region], last[region] = min(first[region], hill), max(last[region], hill)
            left[region], right[region] = min(left[region], x), max(right[region], x)
            spot += 1
        while link < len(weights) and weights[link] >= level:
            count -= unite(find(parents, ones[link]), find(parents, others[link]), state, count)
            link += 1
        chosen = choose(level, ground, state, count) if largest else -1
        while n + count > len(found):
            found = np.concatenate((found, np.empty_like(found)))
        for k in range(count):
            region = live[k]
            if chosen < 0 or chosen == region:
                found[n, 0], found[n, 1], found[n, 2] = level, first[region], last[region]
                found[n, 3], found[n, 4] = left[region], right[region]
                n += 1
    return found[:n]


def find(parents: Any, hill: int) -> int:
    """Root of a hill's tree."""
    while parents[hill] != hill:
        parents[hill] = parents[parents[hill]]
        hill = parents[hill]
    return hill


def unite(one: int, other: int, state: Any, count: int) -> int:
    """Make two regions one; how many of the ``count`` that there are are gone."""
    parents, first, last, left, right, area, live, place = state
    if one == other:
        return 0
    parents[other] = one
    first[one], last[one] = min(first[one], first[other]), max(last[one], last[other])
    left[one], right[one] = min(left[one], left[other]), max(right[one], right[other])
    area[one] = max(area[one], area[other])
    moved = live[count - 1]
    live[place[other]], place[moved] = moved, place[other]
    return 1


def choose(level: int, ground: Any, state: Any, count: int) -> int:
    """The region with the largest outline, among equals the one with the last first pixel."""
    first, area, live = state[1], state[5], state[6]
    known = widest = live[0]
    for k in range(1, count):
        if area[live[k]] > area[known]:
            known = live[k]
        if bound(live[k], ground, state) > bound(widest, ground, state):
            widest = live[k]
    doubt = False
    for k in range(count):
        doubt = doubt or (live[k] != known and bound(live[k], ground, state) >= area[known])
    if not doubt:
        return known
    best, most = widest, measure(widest, level, ground, state)
    for k in range(count):
        region = live[k]
        if region != widest and bound(region, ground, state) >= most:
            own = measure(region, level, ground, state)
            if own > most or (own == most and first[region] > first[best]):
                best, most = region, own
    return best


def bound(region: int, ground: Any, state: Any) -> int:
    """Twice the area between the centres of the outermost pixels: no outline encloses more."""
    _, first, last, left, right, _, _, _ = state
    return 2 * (right[region] - left[region]) * (ground[2][last[region]] - ground[2][first[region]])


def measure(region: int, level: int, ground: Any, state: Any) -> int:
    """Twice the area within a region's outline, noted in the state, where that of a higher level stood."""
    area = state[5]
    if area[region] < bound(region, ground, state):
        start = ground[1][state[1][region]]
        while ground[0][start] < level:
            start += 1
        area[region] = outline(level, start, ground)
    return area[region]


def outline(level: int, start: int, ground: Any) -> int:
    """Twice the area within the outline of the region whose first pixel in reading order is ``start``.

    The polygon through the centres of the border pixels, as OpenCV's ``contourArea`` has it, walked with the outside on
    the right hand: at every pixel the search for the next one goes counterclockwise from the way back. The way next to
    that one never leads on: its pixel was found outside a step before.
    """
    grey, _, _, steps, rights, downs = ground
    turn = 0  # the ways 1 to 4 leave the region
    while grey[start + steps[turn]] < level:
        turn = (turn - 1) & 7
        if turn == 4:
            return 0
    end, here, x, area = start + steps[turn], start, 0, 0
    while True:
        turn += 2
        there = here + steps[turn]
        while grey[there] < level:
            turn += 1
            there = here + steps[turn]
        area += (2 * x + rights[turn]) * downs[turn]
        if there == start and here == end:
            return abs(area)
        x, here, turn = x + rights[turn], there, (turn & 7) ^ 4
