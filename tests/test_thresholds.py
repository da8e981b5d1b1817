"""Boxes at all thresholds: the evaluators' stored results, boxes by definition, OpenCV, with and without numba."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_boxes import KINDS, as_rows, boxes_by_definition, random_map

from trt_cam.errors import InputError
from trt_cam.ops import _hills, _trees
from trt_cam.ops.boxes import boxes_from_map
from trt_cam.ops.maps import minmax, resize
from trt_cam.ops.thresholds import ThresholdBoxes, boxes_at_thresholds

EVERY_LEVEL = np.arange(255) / 255 + 1e-9  # at a maximum of 255, each once


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    """Both ways through: loops by numba, and numpy with loops as they stand."""
    if request.param == "plain":
        monkeypatch.setattr(_trees, "compiled", lambda: None)
    else:
        pytest.importorskip("numba")
        assert _trees.compiled() is not None
    return request.param


# ---- the evaluators' numbers


def by_threshold(counts, boxes):
    """(K, 5): threshold and box, sorted, so that two lists of boxes at each threshold compare as multisets."""
    rows = np.column_stack([np.repeat(np.arange(len(counts)), counts), boxes])
    return rows[np.lexsort(rows.T[::-1])]


def evaluators_rows(found, shape):
    """Their far corner is the last pixel where a box touches the far edge; no box at all is one box of zeros."""
    H, W = shape
    none = np.zeros((1, 4), dtype=int)
    boxes = [found.at(t) if len(found.at(t)) else none for t in range(len(found.index))]
    return by_threshold([len(b) for b in boxes], np.minimum(np.concatenate(boxes), [W, H, W - 1, H - 1]))


def check_against_wsolevaluation(heat, thresholds, single, counts, multi):
    T = len(thresholds)
    found = boxes_at_thresholds(heat, thresholds)
    assert np.array_equal(evaluators_rows(found, heat.shape), by_threshold(np.ones(T, int), single))
    found = boxes_at_thresholds(heat, thresholds, select="all")
    assert np.array_equal(np.maximum(found.counts, 1), counts)
    assert np.array_equal(evaluators_rows(found, heat.shape), by_threshold(counts, multi))


def test_parity_with_wsolevaluation_small(data, path):
    numbers = np.load(data / "wsol_boxes_small.npz")
    ends = numbers["counts_multi"].sum(axis=1).cumsum()
    multi = np.split(numbers["boxes_multi"], ends[:-1])
    for i, index in enumerate(numbers["index"]):
        heat = numbers[f"map_{index:03d}"].astype(np.float64)
        single, counts = numbers["boxes_single"][i], numbers["counts_multi"][i]
        check_against_wsolevaluation(heat, numbers["thresholds"], single, counts, multi[i])


@pytest.mark.parametrize("interval, rows", [("001", 45), ("0001", 16)])
def test_parity_with_wsolevaluation(shared, path, interval, rows):
    numbers = np.load(shared / "parity" / "wsol_boxes.npz")
    thresholds, multi = numbers[f"thresholds_{interval}"], numbers[f"boxes_multi_{interval}"]
    single, counts = numbers[f"boxes_single_{interval}"], numbers[f"counts_multi_{interval}"]
    starts = numbers[f"offsets_multi_{interval}"]
    indices = np.arange(45) if interval == "001" else numbers["subset_0001"]
    assert len(single) == len(indices) == rows
    for i, index in enumerate(indices):
        heat = numbers[f"map_{index:03d}"].astype(np.float64)
        check_against_wsolevaluation(heat, thresholds, single[i], counts[i], multi[starts[i] : starts[i + 1]])


def check_against_trt_evaluation(numbers, group):
    size, thresholds = int(numbers[f"{group}_size"]), numbers["thr"]
    heats = minmax(resize(torch.tensor(numbers[f"{group}_map"]), (size, size), "bilinear"))[0].numpy()
    grey = numbers[f"{group}_gray"] if f"{group}_gray" in numbers.files else []
    for i, heat in enumerate(heats):
        for given in [heat, grey[i]] if len(grey) else [heat]:
            found = boxes_at_thresholds(given, thresholds)
            assert np.array_equal(found.boxes[found.index], numbers[f"{group}_box"][i])  # far corner may be the size
            found = boxes_at_thresholds(given, thresholds, select="all")
            counts = numbers[f"{group}_multi_count"][i]
            assert np.array_equal(found.counts, counts)
            for t, count in enumerate(counts):
                wanted = numbers[f"{group}_multi_box"][i, t, :count]
                assert as_rows(found.at(t).clip(max=size - 1)) == as_rows(wanted)


@pytest.mark.parametrize("group", ["a14", "a6", "a7"])
def test_parity_with_the_trt_evaluation(data, path, group):
    check_against_trt_evaluation(np.load(data / "trt_eval_boxes_small.npz"), group)


@pytest.mark.parametrize("group", ["a14", "a24", "a6", "a7"])
def test_parity_with_the_whole_trt_evaluation(shared, path, group):
    check_against_trt_evaluation(np.load(shared / "parity" / "trt_eval_boxes.npz"), group)


# ---- hard cases


def drawn(picture):
    """A map from rows of digits, 9 the maximum."""
    return np.array([[int(x) for x in row] for row in picture.split()]) / 9


HARD = {
    "zero-area ties": ("9000 0009 0500 0990", [[1, 3, 3, 4]]),
    "a diamond ring's outline encloses as much as its hole's": (
        "0000000000 0009000000 0090900000 0900090000 0090900000 0009000000 0009000000 0000900000",
        [[1, 1, 6, 8]],
    ),
    "a ring around less than a solid has pixels": (
        "99999990000 90000090000 90000090999 90000090999 90000090999 99999990999",
        [[0, 0, 7, 6]],
    ),
    "a solid within a ring's hole": ("9999999 9000009 9099909 9099909 9099909 9000009 9999999", [[0, 0, 7, 7]]),
    "background that touches the frame is no hole": ("99999 90009 90009 90009", [[0, 0, 5, 4]]),
    "background that touches the frame at a corner only is a hole": ("90999 09009 99999", [[0, 0, 5, 3]]),
    "two squares that touch at a corner": ("99000 99000 00990 00990", [[0, 0, 4, 4]]),
    "one region with two holes that touch at a corner": ("999900 900900 900999 999009 009009 009999", [[0, 0, 6, 6]]),
    "equal solid and ring: the later one": ("9999099990 9999090090 9999090090 9999099990", [[5, 0, 9, 4]]),
    "one row": ("0990905099", [[8, 0, 10, 1]]),
    "one column": ("9 0 9 9 0 5", [[0, 2, 1, 4]]),
    "one pixel": ("9", [[0, 0, 1, 1]]),
    "constant": ("555 555", [[0, 0, 3, 2]]),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_case(name, path):
    picture, largest = HARD[name]
    heat = drawn(picture)
    assert boxes_at_thresholds(heat, [0.7]).at(0).tolist() == largest
    check_by_definition(heat)


def test_all_zero(path):
    for select in ("largest", "all_external", "all"):
        found = boxes_at_thresholds(np.zeros((5, 4)), [0.9, 0.0], select=select)
        assert found.levels.tolist() == [0] and found.offsets.tolist() == [0, 0]
        assert found.index.tolist() == [0, 0] and found.counts.tolist() == [0, 0]
        assert found.at(0).shape == found.boxes.shape == (0, 4)


# ---- by definition


def check_by_definition(heat, *paths):
    """Each selection at each level where something changes and at the one below; in the order of boxes_from_map too."""
    grey = (heat * 255).astype(np.uint8)
    values = np.unique(grey).astype(int)
    levels = [level for level in np.union1d(values - 1, values) if 0 <= level < values[-1]]
    thresholds = (np.array(levels) + 0.5) / values[-1]
    for select in ("largest", "all_external", "all"):
        found = [find(heat, thresholds, select=select) for find in paths or [boxes_at_thresholds]]
        for t, level in enumerate(levels):
            wanted = boxes_by_definition(grey > level, select, "contour_area")
            ordered = boxes_from_map(heat, float(thresholds[t]), select=select)
            assert as_rows(ordered) == wanted
            for one in found:
                assert one.levels.tolist() == levels
                assert np.array_equal(one.at(t), ordered), (select, level)


def check_against_one_threshold(heat, thresholds):
    for select in ("largest", "all_external", "all"):
        found = boxes_at_thresholds(heat, thresholds, select=select)
        for t, threshold in enumerate(thresholds):
            assert np.array_equal(found.at(t), boxes_from_map(heat, float(threshold), select=select)), (select, t)


@pytest.fixture
def both_paths(monkeypatch):
    pytest.importorskip("numba")

    def plain(*args, **options):
        with monkeypatch.context() as without:
            without.setattr(_trees, "compiled", lambda: None)
            return boxes_at_thresholds(*args, **options)

    return boxes_at_thresholds, plain


def odd_map(rng, kind):
    """Ties, holes and plateaus of few grey levels."""
    if kind in KINDS:
        return np.round(random_map(rng, kind) * 6) / 6
    H, W = rng.integers(1, 22, size=2)
    y, x = np.mgrid[:H, :W]
    if kind == "checkers":
        return np.where(rng.random((H, W)) < 0.1, rng.random(), (x // rng.integers(1, 3) + y) % 2 * 0.6 + 0.2)
    if kind == "diagonals":
        return ((x + y) % rng.integers(2, 6) == 0) * rng.integers(1, 4, size=(H, W)) / 3
    heat = np.zeros((H, W))  # nested rectangles, each brighter or darker than the one around it
    for depth in range(min(H, W) // 2):
        heat[depth : H - depth, depth : W - depth] = rng.integers(0, 5) / 4
    return np.where(rng.random((H, W)) < 0.03, 1.0, heat)


ODD = [*KINDS, "checkers", "diagonals", "nested"]


@pytest.mark.parametrize("kind", ODD)
def test_random_maps_by_definition(both_paths, kind):
    for seed in range(8):
        check_by_definition(odd_map(np.random.default_rng(seed), kind), *both_paths)


@pytest.mark.parametrize("kind", ODD)
def test_both_paths_are_equal(both_paths, kind):
    for seed in range(20, 60):
        rng = np.random.default_rng(seed)
        heat = (odd_map if seed % 2 or kind not in KINDS else random_map)(rng, kind)
        for select in ("largest", "all"):
            fast, plain = (find(heat, EVERY_LEVEL, select=select) for find in both_paths)
            assert np.array_equal(fast.boxes, plain.boxes) and np.array_equal(fast.offsets, plain.offsets), seed


def evaluators_loop(heat, thresholds, cv2):
    """Largest box and all boxes at each threshold, as wsolevaluation has OpenCV find them; far edge exclusive."""
    grey = (heat * 255).astype(np.uint8)
    for threshold in thresholds:
        _, mask = cv2.threshold(grey, int(threshold * grey.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        boxes = [(x, y, x + w, y + h) for x, y, w, h in map(cv2.boundingRect, contours)]
        largest = max(
            range(len(boxes)), key=lambda i: cv2.contourArea(contours[i]), default=None
        )  # the first of equals
        yield [] if largest is None else [boxes[largest]], sorted(boxes)


@pytest.mark.parametrize("kind", ODD)
def test_equal_to_opencv(path, kind):
    cv2 = pytest.importorskip("cv2")
    for seed in range(100, 115):
        rng = np.random.default_rng(seed)
        heat = (odd_map if seed % 2 or kind not in KINDS else random_map)(rng, kind)
        largest, every = (boxes_at_thresholds(heat, EVERY_LEVEL, select=select) for select in ("largest", "all"))
        for t, (one, boxes) in enumerate(evaluators_loop(heat, EVERY_LEVEL, cv2)):
            assert as_rows(largest.at(t)) == one and as_rows(every.at(t)) == boxes, (seed, t)


@pytest.mark.parametrize("shape", [(1024, 1024), (3, 4000), (4000, 3)])
def test_large_maps(path, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    heat = (2 + np.sin(x / 97 + y / 311) + np.cos(y / 130 - x / 500)) / 4
    found = boxes_at_thresholds(heat, np.arange(0, 1, 0.01), select="all")
    for t in (0, 50, 97):
        assert np.array_equal(found.at(t), boxes_from_map(heat, t / 100, select="all"))
    largest = boxes_at_thresholds(heat, np.arange(0, 1, 0.01))
    assert np.array_equal(largest.at(60), boxes_from_map(heat, 0.6))


# ---- the interface


def test_levels_are_distinct_and_thresholds_come_in_any_order(rng):
    heat = rng.random((12, 9))
    heat[3, 3] = 100 / 255
    heat = np.minimum(heat, 100 / 255)
    thresholds = np.array([0.5, 0.29, 0.0, 0.285, 0.5, 0.9999, 0.28])
    found = boxes_at_thresholds(heat, thresholds, select="all_external")
    assert found.levels.tolist() == [0, 28, 50, 99]  # 0.29 * 100 is below 29 in float64
    assert found.index.tolist() == [2, 1, 0, 1, 2, 3, 1]
    assert found.offsets[0] == 0 and found.offsets[-1] == len(found.boxes)
    assert np.array_equal(found.counts, [len(found.at(t)) for t in range(7)])
    assert {array.dtype for array in vars(found).values()} == {np.dtype(np.int64)}
    check_against_one_threshold(heat, thresholds)


def test_no_threshold_no_level():
    found = boxes_at_thresholds(np.ones((3, 3)), np.empty(0))
    assert found.counts.shape == found.levels.shape == (0,) and found.boxes.shape == (0, 4)


def test_the_result_is_frozen(rng):
    found = boxes_at_thresholds(rng.random((4, 4)), [0.2])
    assert isinstance(found, ThresholdBoxes)
    with pytest.raises(AttributeError):
        found.levels = found.index


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_truncated_to_grey_levels(path, rng, dtype):
    heat = rng.random((16, 16)).astype(dtype)
    thresholds = rng.random(12)
    exact = heat.astype(np.float32) if dtype == np.float16 else heat
    from_heat = boxes_at_thresholds(heat, thresholds, select="all")
    from_grey = boxes_at_thresholds((exact * 255).astype(np.uint8), thresholds, select="all")
    assert np.array_equal(from_heat.boxes, from_grey.boxes) and np.array_equal(from_heat.levels, from_grey.levels)
    check_against_one_threshold(heat, thresholds)


def test_memory_layouts_and_the_input_is_left_alone(path, rng):
    grey = rng.integers(0, 9, size=(9, 12)).astype(np.uint8) * 31
    wanted = boxes_at_thresholds(grey, EVERY_LEVEL, select="all").boxes
    before = grey.copy()
    before.flags.writeable = False
    for other in (before, np.asfortranarray(grey), np.repeat(grey, 2, axis=1)[:, ::2], grey[::-1].copy()[::-1]):
        assert np.array_equal(boxes_at_thresholds(other, EVERY_LEVEL, select="all").boxes, wanted)
    assert np.array_equal(grey, before)


@pytest.mark.parametrize(
    "heat, complaint",
    [
        (np.array([[0.5, math.nan]]), r"in \[0, 1\], got nan"),
        (np.array([[0.5, 1.1]]), "got 0.5 to 1.1"),
        (np.array([[-0.1, 1.0]]), "got -0.1"),
        (np.ones((2, 3, 3)), r"one map \(H, W\), got \(2, 3, 3\)"),
        (np.ones(4), "one map"),
        (np.ones((0, 4)), "pixels"),
        (np.ones((2, 2), dtype=np.int64), "floats .* got int64"),
        (np.ones((1, 2, 2), dtype=np.uint8), r"grey levels \(H, W\) .* got \(1, 2, 2\)"),
        (np.ones((0, 2), dtype=np.uint8), "pixels"),
        ([[0.5]], "got list"),
    ],
)
def test_refuses_bad_heat(heat, complaint):
    with pytest.raises(InputError, match=complaint):
        boxes_at_thresholds(heat, [0.2])


@pytest.mark.parametrize("thresholds", [[1.0], [0.2, -0.1], [math.nan], 0.2, [[0.2]], ["0.2"], [True], [None]])
def test_refuses_bad_thresholds(thresholds):
    with pytest.raises(InputError, match="thresholds must be"):
        boxes_at_thresholds(np.ones((2, 2)), thresholds)


def test_refuses_bad_select():
    with pytest.raises(InputError, match="select must be one of largest, all_external, all, got 'biggest'"):
        boxes_at_thresholds(np.ones((2, 2)), [0.2], select="biggest")


# ---- numba


def test_numba_is_loaded_by_the_first_use_only():
    code = "import sys, trt_cam.ops._trees; print('numba' in sys.modules)"  # the only file that imports it
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def compiled_anew():
    _trees.compiled.cache_clear()
    yield
    _trees.compiled.cache_clear()


def test_without_numba_the_loops_run_as_they_stand(monkeypatch, compiled_anew):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert _trees.compiled() is None
    assert boxes_at_thresholds(drawn("909 000 990"), [0.2]).at(0).tolist() == [[0, 2, 2, 3]]


def test_where_nothing_can_be_kept_the_loops_are_compiled_for_this_process(monkeypatch, compiled_anew):
    numba = pytest.importorskip("numba")

    def njit(cache=False, nogil=False):
        def compile_(function):
            if cache:
                raise RuntimeError("no locator available")
            return function

        return compile_

    monkeypatch.setattr(numba, "njit", njit)
    assert _trees.compiled() == (_hills.by_loops, _trees.sweep)
    check_against_one_threshold(drawn("9990099 9090099 9990900"), [0.2, 0.7])  # uncompiled, and equal
