"""Boxes against the evaluators' stored results, against a slow computation by definition, and against OpenCV."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from trt_cam.errors import InputError
from trt_cam.ops.boxes import box_iou, boxes_from_map
from trt_cam.ops.maps import minmax, resize

EIGHT = np.ones((3, 3))


# ---- random maps, and what their boxes are by definition


def random_map(rng, kind):
    H, W = rng.integers(1, 25, size=2) if kind != "row" else (1, int(rng.integers(1, 30)))
    if kind == "noise":
        return rng.random((H, W))
    if kind in ("plateaus", "row"):
        return rng.integers(0, 5, size=(H, W)) / 4
    if kind == "smooth":
        return minmax(torch.tensor(ndimage.gaussian_filter(rng.normal(size=(H, W)), 1.5)))[0].numpy()
    if kind == "constant":
        return np.full((H, W), rng.choice([0.0, 0.25, 1.0]))
    rings = np.zeros((H, W))  # nested frames of one pixel and tails: equal areas, holes, regions within holes
    for _ in range(rng.integers(1, 6)):
        y, x = rng.integers(0, H), rng.integers(0, W)
        h, w = rng.integers(1, 9, size=2)
        rings[y : y + h, x : x + w] = rng.choice([0.5, 1.0])
        rings[y + 1 : y + h - 1, x + 1 : x + w - 1] = rng.choice([0.0, 0.0, 0.5, 1.0])
    return rings


KINDS = ("noise", "plateaus", "smooth", "constant", "rings", "row")
MAPS = [(kind, seed) for kind in KINDS for seed in range(60)]


def extent(region, grow=0):
    ys, xs = np.nonzero(region)
    return xs.min() - grow, ys.min() - grow, xs.max() + 1 + grow, ys.max() + 1 + grow


def area_by_definition(region):
    filled = ndimage.binary_fill_holes(region).astype(int)
    blocks = filled[:-1, :-1] + filled[:-1, 1:] + filled[1:, :-1] + filled[1:, 1:]
    return (np.maximum(blocks - 2, 0)).sum() / 2


def boxes_by_definition(mask, select, rank):
    labels, count = ndimage.label(mask, EIGHT)
    regions = [labels == i for i in range(1, count + 1)]
    if select == "largest" and regions:
        size = area_by_definition if rank == "contour_area" else np.sum
        regions = [max(regions, key=lambda region: (size(region), np.flatnonzero(region)[0]))]
    boxes = [extent(region) for region in regions]
    if select == "all":
        holes, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
        boxes += [extent((holes == i)[1:-1, 1:-1], 1) for i in range(1, count + 1) if i != holes[0, 0]]
    return sorted(boxes)


def as_rows(boxes):
    return sorted(tuple(int(x) for x in box) for box in boxes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("select", ["largest", "all_external", "all"])
@pytest.mark.parametrize("rank", ["contour_area", "pixel_area"])
def test_boxes_by_definition(kind, select, rank):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        heat, threshold = random_map(rng, kind), rng.choice([0.0, 0.2, 0.5, 0.74])
        mask = heat > threshold * heat.max()
        found = boxes_from_map(heat, float(threshold), select=select, rank=rank, levels=None)
        assert as_rows(found) == boxes_by_definition(mask, select, rank), (kind, seed)
        assert (found[:, :2] >= 0).all() and (found[:, 2:] <= heat.shape[::-1]).all()


@pytest.mark.parametrize("kind, seed", MAPS[::3])
def test_boxes_equal_opencv(kind, seed):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    heat = random_map(rng, kind)
    for threshold in (0.0, 0.2, 0.5, 0.74):
        grey = (heat * 255).astype(np.uint8)
        mask = (grey > int(threshold * grey.max())).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        wanted = [(x, y, x + w, y + h) for x, y, w, h in map(cv2.boundingRect, contours)]
        assert as_rows(boxes_from_map(heat, threshold, select="all")) == as_rows(wanted)
        largest = (
            [wanted[int(np.argmax([cv2.contourArea(c) for c in contours]))]] if wanted else []
        )  # the first of equals
        assert as_rows(boxes_from_map(heat, threshold)) == as_rows(largest)


# ---- the evaluators' numbers


def evaluators_corner(boxes, shape, empty=(0, 0, 0, 0)):
    """Their far corner is the last pixel where a box touches the far edge; no box at all is one fixed box."""
    H, W = shape
    return as_rows(np.minimum(np.asarray(boxes), [W, H, W - 1, H - 1])) if len(boxes) else [empty]


def check_against_wsolevaluation(heat, thresholds, single, multi):
    """``single`` (T, 4), ``multi`` T arrays; results depend on the integer threshold only, so each is tried once."""
    grey = int((heat * 255).astype(np.uint8).max())
    first = {}
    for t, threshold in enumerate(thresholds):
        same = first.setdefault(int(threshold * grey), t)
        if same == t:
            found = boxes_from_map(heat, float(threshold))
            assert evaluators_corner(found, heat.shape) == as_rows(single[t : t + 1]), threshold
            found = boxes_from_map(heat, float(threshold), select="all")
            assert evaluators_corner(found, heat.shape) == as_rows(multi[t]), threshold
        assert np.array_equal(single[t], single[same]) and as_rows(multi[t]) == as_rows(multi[same])


def test_parity_with_wsolevaluation_small(data):
    numbers = np.load(data / "wsol_boxes_small.npz")
    counts = numbers["counts_multi"]
    multi = np.split(numbers["boxes_multi"], counts.ravel().cumsum()[:-1])
    T = len(numbers["thresholds"])
    for i, index in enumerate(numbers["index"]):
        heat = numbers[f"map_{index:03d}"].astype(np.float64)
        check_against_wsolevaluation(
            heat, numbers["thresholds"], numbers["boxes_single"][i], multi[i * T : (i + 1) * T]
        )


@pytest.mark.parametrize("index", range(45))
def test_parity_with_wsolevaluation_at_100_thresholds(shared, index):
    numbers = np.load(shared / "parity" / "wsol_boxes.npz")
    start, stop = numbers["offsets_multi_001"][index : index + 2]
    multi = np.split(numbers["boxes_multi_001"][start:stop], numbers["counts_multi_001"][index].cumsum()[:-1])
    heat = numbers[f"map_{index:03d}"].astype(np.float64)
    for t, threshold in enumerate(numbers["thresholds_001"]):
        assert int(float(threshold) * int((heat * 255).max())) == numbers["int_thresholds_001"][index, t]
    part = slice(index % 4, None, 4)  # another quarter for each map; all are in test_thresholds, in one pass
    single = numbers["boxes_single_001"][index, part]
    check_against_wsolevaluation(heat, numbers["thresholds_001"][part], single, multi[part])


@pytest.mark.slow
@pytest.mark.parametrize("row", range(16))
def test_parity_with_wsolevaluation_at_1000_thresholds(shared, row):
    numbers = np.load(shared / "parity" / "wsol_boxes.npz")
    start, stop = numbers["offsets_multi_0001"][row : row + 2]
    multi = np.split(numbers["boxes_multi_0001"][start:stop], numbers["counts_multi_0001"][row].cumsum()[:-1])
    heat = numbers[f"map_{numbers['subset_0001'][row]:03d}"].astype(np.float64)
    check_against_wsolevaluation(heat, numbers["thresholds_0001"], numbers["boxes_single_0001"][row], multi)


def check_against_trt_evaluation(numbers, group):
    """From the raw map: bilinear to the crop, min-max, boxes."""
    size = int(numbers[f"{group}_size"])
    heat, flat = minmax(resize(torch.tensor(numbers[f"{group}_map"]), (size, size), "bilinear"))
    assert not flat.any()
    if f"{group}_gray" in numbers.files and numbers[f"{group}_gray"].size:
        assert np.abs((heat.numpy() * 255).astype(np.uint8) - numbers[f"{group}_gray"].astype(int)).max() <= 1
    for t, threshold in enumerate(numbers["thr"]):
        largest = boxes_from_map(heat, float(threshold))
        every = boxes_from_map(heat, float(threshold), select="all")
        for i in range(len(heat)):
            assert np.array_equal(largest[i][0], numbers[f"{group}_box"][i, t])  # far corner may be the size
            assert evaluators_corner(largest[i], (size, size)) == as_rows([numbers[f"{group}_single_box_v2"][i, t]])
            count = numbers[f"{group}_multi_count"][i, t]
            assert as_rows(every[i].clamp(max=size - 1)) == as_rows(numbers[f"{group}_multi_box"][i, t, :count])


@pytest.mark.parametrize("group", ["a14", "a6", "a7"])
def test_parity_with_the_trt_evaluation(data, group):
    check_against_trt_evaluation(np.load(data / "trt_eval_boxes_small.npz"), group)


@pytest.mark.parametrize("group", ["a6", "a7"])
def test_parity_from_the_evaluators_own_grey_levels(data, group):
    numbers = np.load(data / "trt_eval_boxes_small.npz")
    for t, threshold in enumerate(numbers["thr"]):
        for grey, wanted in zip(numbers[f"{group}_gray"], numbers[f"{group}_box"][:, t], strict=True):
            assert np.array_equal(boxes_from_map(grey / 255, float(threshold))[0], wanted)


@pytest.mark.parametrize("group", ["a14", "a24", "a6", "a7"])
def test_parity_with_the_whole_trt_evaluation(shared, group):
    check_against_trt_evaluation(np.load(shared / "parity" / "trt_eval_boxes.npz"), group)


# ---- the interface


def test_tensor_in_tensor_out_and_batches_are_lists():
    heat = torch.zeros(2, 4, 5)
    heat[1, 1:3, 2:5] = 1.0
    empty, one = boxes_from_map(heat)
    assert empty.shape == (0, 4) and empty.dtype == one.dtype == torch.int64
    assert one.tolist() == [[2, 1, 5, 3]]
    assert torch.equal(boxes_from_map(heat[1]), one)
    arrays = boxes_from_map(heat.numpy())
    assert isinstance(arrays, list) and arrays[1].dtype == np.int64 and np.array_equal(arrays[1], one)
    assert boxes_from_map(heat[:0]) == []


def test_all_kinds_of_floats_and_memory_layouts(rng):
    heat = np.round(rng.random((9, 12)) * 8) / 8  # exact in every type
    wanted = boxes_from_map(heat, select="all").tolist()
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert boxes_from_map(torch.tensor(heat, dtype=dtype, requires_grad=True), select="all").tolist() == wanted
    for other in (heat.astype(np.float16), np.asfortranarray(heat), np.repeat(heat, 2, axis=1)[:, ::2]):
        assert boxes_from_map(other, select="all").tolist() == wanted


def test_the_input_is_left_alone(rng):
    heat = rng.random((8, 8))
    before = heat.copy()
    boxes_from_map(heat, select="all")
    assert np.array_equal(heat, before)


def test_the_threshold_is_multiplied_in_float64_and_truncated():
    heat = np.array([[100 / 255, 0.0, 29 / 255, 0.0, 28 / 255]])
    assert boxes_from_map(heat, 0.29, select="all").tolist() == [[0, 0, 1, 1], [2, 0, 3, 1]]  # 0.29 * 100 is below 29
    assert boxes_from_map(heat, 0.29, select="all", levels=None).tolist() == [[0, 0, 1, 1], [2, 0, 3, 1]]
    single = np.array([[1.0, 0.0, 0.3]], dtype=np.float32)  # float32 has 0.3 a little higher than float64
    assert len(boxes_from_map(single, 0.3, select="all", levels=None)) == 2


def test_without_levels_a_difference_below_one_grey_level_counts():
    heat = np.array([[0.5, 0.0, 0.2501]])
    assert len(boxes_from_map(heat, 0.5, select="all")) == 1
    assert len(boxes_from_map(heat, 0.5, select="all", levels=None)) == 2


def test_a_region_within_a_hole_is_a_region():
    heat = np.ones((7, 7))
    heat[1:6, 1:6] = 0
    heat[3, 3] = 1
    assert boxes_from_map(heat, select="all_external").tolist() == [[0, 0, 7, 7], [3, 3, 4, 4]]
    assert boxes_from_map(heat, select="all").tolist() == [[0, 0, 7, 7], [3, 3, 4, 4], [0, 0, 7, 7]]
    assert boxes_from_map(heat).tolist() == [[0, 0, 7, 7]]


def test_of_equal_areas_the_last_first_pixel_wins():
    heat = np.zeros((6, 18))
    heat[range(6), range(5, -1, -1)] = 1  # a diagonal line: no area, starts at x = 5 though its box starts at 0
    heat[0, 2] = 1
    assert boxes_from_map(heat).tolist() == [[0, 0, 6, 6]]
    heat[:4, 8:12] = heat[:4, 13:17] = 1  # a solid square and an equal frame to its right
    heat[1:3, 14:16] = 0
    assert boxes_from_map(heat).tolist() == [[13, 0, 17, 4]]


def test_a_ring_beats_a_larger_solid_by_contour_only():
    heat = np.zeros((12, 20))
    heat[1:11, 1:11], heat[2:10, 2:10] = 1, 0  # 36 pixels around 64
    heat[3:9, 12:19] = 1  # 42 pixels
    assert boxes_from_map(heat).tolist() == [[1, 1, 11, 11]]
    assert boxes_from_map(heat, rank="pixel_area").tolist() == [[12, 3, 19, 9]]


@pytest.mark.parametrize(
    "heat, complaint",
    [
        (np.array([[0.5, math.nan]]), r"in \[0, 1\], got nan"),
        (np.array([[0.5, 1.1]]), r"got 0.5 to 1.1"),
        (np.array([[-0.1, 1.0]]), r"got -0.1"),
        (np.array([[0, 255]], dtype=np.uint8), "floats .* got uint8"),
        (np.ones(4), r"\(H, W\) or \(B, H, W\)"),
        (np.ones((0, 4)), "pixels"),
        (torch.ones(1, 1, 2, 2), r"got float32 \(1, 1, 2, 2\)"),
        ([[0.5]], "tensor or a numpy array, got list"),
    ],
)
def test_refuses_bad_heat(heat, complaint):
    with pytest.raises(InputError, match=complaint):
        boxes_from_map(heat)


@pytest.mark.parametrize(
    "option",
    [{"threshold": x} for x in (1, 1.0, -0.1, math.nan, "0.2", None, True)]
    + [{"select": "biggest"}, {"rank": "area"}, {"levels": 255}],
)
def test_refuses_bad_options(option):
    with pytest.raises(InputError, match=next(iter(option))):
        boxes_from_map(np.ones((2, 2)), **option)


# ---- box_iou


def iou_by_definition(a, b):
    pixels = [np.zeros((30, 30), bool) for _ in range(2)]
    for mask, (x0, y0, x1, y1) in zip(pixels, (a, b), strict=True):
        mask[y0:y1, x0:x1] = True
    union = (pixels[0] | pixels[1]).sum()
    return (pixels[0] & pixels[1]).sum() / union if union else 0.0


def test_iou_by_counting_pixels(rng):
    corners = rng.integers(0, 30, size=(2, 25, 2, 2))
    boxes1, boxes2 = np.concatenate([corners.min(2), corners.max(2)], axis=-1)
    found = box_iou(boxes1, boxes2[:20])
    assert found.shape == (25, 20) and found.dtype == np.float64
    for i, a in enumerate(boxes1):
        for j, b in enumerate(boxes2[:20]):
            assert found[i, j] == pytest.approx(iou_by_definition(a, b), abs=1e-12)
    as_tensor = box_iou(torch.tensor(boxes1).float(), torch.tensor(boxes2[:20]).float())
    assert as_tensor.dtype == torch.float32
    np.testing.assert_allclose(as_tensor, found, atol=1e-6)


def test_iou_parity_of_inclusive_corners(data):
    numbers = np.load(data / "trt_eval_boxes_small.npz")
    a, b = (numbers[key] + [0, 0, 1, 1] for key in ("iou_a", "iou_b"))  # theirs count the far pixel
    np.testing.assert_allclose(box_iou(a, b).diagonal(), numbers["iou_iou"], atol=1e-12)
    np.testing.assert_allclose(box_iou(a[:6], b[:5]), numbers["iou_multi"], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_iou_of_half_precision_boxes_is_computed_in_float32(generator, dtype):
    corners = 4 * torch.randint(0, 256, (20, 2, 2), generator=generator)  # exact in both types, but areas are not
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    found = box_iou(boxes.to(dtype), boxes.to(dtype))
    assert found.dtype == dtype
    assert torch.equal(found, box_iou(boxes.float(), boxes.float()).to(dtype))


def test_iou_of_arrays_that_torch_does_not_take():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2]])
    wanted = box_iou(boxes, boxes)
    fixed = boxes.copy()
    fixed.flags.writeable = False
    for other in (boxes[::-1], np.asfortranarray(boxes)[::-1], fixed[::-1], boxes.astype(">i8")[::-1]):
        assert np.array_equal(box_iou(other, boxes), wanted[::-1])


def test_iou_of_nothing():
    assert box_iou(torch.zeros(0, 4), torch.ones(3, 4)).shape == (0, 3)
    assert box_iou(np.zeros((2, 4)), np.zeros((0, 4))).shape == (2, 0)
    assert box_iou(np.zeros((1, 4), int), np.zeros((1, 4), int)).tolist() == [[0.0]]


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros(4),
        np.zeros((2, 5)),
        np.array([[2, 0, 1, 1]]),
        np.array([[0, 0, math.nan, 1]]),
        [[0, 0, 1, 1]],
        np.array([["0", "0", "1", "1"]]),
        np.array([[0, 0, 1, 1j]]),
        np.zeros((1, 4), bool),
        torch.zeros(1, 4),
        torch.zeros(1, 4, dtype=torch.bool),
    ],
)
def test_iou_refuses(boxes):
    with pytest.raises(InputError, match="boxes1"):
        box_iou(boxes, np.ones((1, 4)))
