"""PxAP against the evaluator's stored histograms and curves, and against average precision by definition."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from trt_cam.errors import DatasetError, InputError
from trt_cam.metrics.intervals import bootstrap
from trt_cam.metrics.masks import (
    MaskResults,
    average_precision,
    evaluation_mask,
    mask_figures,
    precision_recall,
    score_histograms,
)
from trt_cam.metrics.pairs import paired_masks
from trt_cam.metrics.protocols import threshold_list


def unpacked(packed, lengths, sizes):
    parts = np.split(packed, np.cumsum(lengths)[:-1])
    return [
        np.unpackbits(part)[: H * W].reshape(H, W).astype(np.uint8) * 255
        for part, (H, W) in zip(parts, sizes, strict=True)
    ]


def masks_of(numbers, start=""):
    """The evaluator's masks from the stored instances and ignore regions."""
    sizes, counts = numbers[f"{start}mask_sizes_hw"], numbers[f"{start}mask_instances"]
    instances = unpacked(
        numbers[f"{start}mask_packed"], numbers[f"{start}mask_packed_len"], np.repeat(sizes, counts, axis=0)
    )
    ignored = unpacked(numbers[f"{start}ignore_packed"], numbers[f"{start}ignore_packed_len"], sizes)
    ends = np.cumsum(counts)
    return [
        evaluation_mask(instances[end - count : end], ignore)
        for end, count, ignore in zip(ends, counts, ignored, strict=True)
    ]


def test_parity_small(data):
    numbers, maps = np.load(data / "wsol_evaluation_small.npz"), np.load(data / "wsol_boxes_small.npz")
    masks = masks_of(numbers, "pxap_")
    assert np.array_equal(masks, numbers["pxap_gt_mask_224"])
    for i, index in enumerate(numbers["pxap_map_index"]):
        true, false = score_histograms(maps[f"map_{index:03d}"].astype(np.float64), masks[i], threshold_list())
        assert np.array_equal(true, numbers["pxap_hist_true_001"][i])
        assert np.array_equal(false, numbers["pxap_hist_false_001"][i])
        assert average_precision(true, false) == numbers["pxap_per_image_001"][i]


@pytest.mark.parametrize("interval, name", [(0.01, "001"), (0.001, "0001")])
def test_parity(shared, interval, name):
    numbers, maps = np.load(shared / "parity" / "wsol_pxap.npz"), np.load(shared / "parity" / "wsol_boxes.npz")
    masks = masks_of(numbers)
    assert np.array_equal(masks, numbers["gt_mask_224"])
    results = MaskResults(threshold_list(interval))
    assert np.array_equal(results.thresholds, numbers[f"thresholds_{name}"])
    for i, index in enumerate(numbers["map_index_in_wsol_boxes"]):
        results.add(i, str(i), maps[f"map_{index:03d}"].astype(np.float64), masks[i])
    table = results.table()
    assert np.array_equal(table.true, numbers[f"hist_true_{name}"])
    assert np.array_equal(table.false, numbers[f"hist_false_{name}"])
    found = mask_figures(results, draws=2)
    assert found.scores["pxap"].value == numbers[f"pxap_{name}"]
    each = [average_precision(true, false) for true, false in zip(table.true, table.false, strict=True)]
    assert np.array_equal(each, numbers[f"pxap_per_image_{name}"], equal_nan=True)
    precision, recall = precision_recall(table.true.sum(axis=0), table.false.sum(axis=0))
    assert np.array_equal(precision, numbers[f"precision_{name}"], equal_nan=True)
    assert np.array_equal(recall, numbers[f"recall_{name}"])
    assert np.array_equal(np.array(found.curves["precision"], float), precision, equal_nan=True)


# ---- by definition


def random_photo(rng, quality=0.5, side=20):
    mask = np.zeros((side, side), np.uint8)
    y, x = rng.integers(0, side - 5, 2)
    mask[y : y + rng.integers(2, 15), x : x + rng.integers(2, 15)] = 1
    heat = rng.random((side, side)) * quality + mask * (1 - quality)
    mask[rng.random((side, side)) < 0.1] = 255
    return np.round(heat * 10) / 10, mask  # scores on the edges of bins, and some of exactly 1


def random_results(seed=0, count=8, quality=0.5):
    rng, results = np.random.default_rng(seed), MaskResults()
    for index in range(count):
        results.add(index, f"{index}.jpg", *random_photo(rng, quality))
    return results


def pxap_by_definition(photos):
    """Area under precision and recall, a step for each different score, the highest first."""
    scores = np.concatenate([heat[mask != 255] for heat, mask in photos])
    positive = np.concatenate([mask[mask != 255] == 1 for _, mask in photos])
    total, before = 0.0, 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        above = scores >= score
        recall = positive[above].sum() / positive.sum()
        total += positive[above].mean() * (recall - before)
        before = recall
    return 100 * total


def test_pxap_by_definition():
    rng = np.random.default_rng(0)
    photos = [random_photo(rng) for _ in range(8)]
    found = mask_figures(random_results(), draws=2)
    assert found.scores["pxap"].value == pytest.approx(pxap_by_definition(photos), rel=1e-12)
    constant = [(np.zeros_like(heat), mask) for heat, mask in photos]
    assert found.baselines["whole_image"].value == pytest.approx(pxap_by_definition(constant), rel=1e-12)
    y, x = np.mgrid[:20, :20] - 9.5
    distance = np.hypot(y, x)
    centre = [(np.floor((1 - distance / distance.max()) * 100) / 100, mask) for _, mask in photos]
    assert found.baselines["centre"].value == pytest.approx(pxap_by_definition(centre), rel=1e-12)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_by_size_of_the_object():
    results = random_results(count=30)
    table, found = results.table(), mask_figures(results, draws=2)
    for name, rows in table.by_size().items():
        group = found.by_size[name]
        assert group["photos"] == rows.sum()
        if rows.any():
            true, false = table.true[rows].sum(axis=0), table.false[rows].sum(axis=0)
            assert group["pxap"].value == average_precision(true, false)
        else:
            assert set(group) == {"photos"}
    assert found.by_size["small"]["photos"] + found.by_size["0.4 and more"]["photos"] == 30


def test_masks_are_united_and_objects_are_never_ignored():
    left, right, ignored = np.zeros((4, 4)), np.zeros((2, 2), np.uint8), np.zeros((4, 4), bool)
    left[:, 0], right[:, 1], ignored[:2] = 1, 1, True  # grey level 1 of 255 counts, too
    assert evaluation_mask([left, right], ignored, size=4).tolist() == [[1, 255, 1, 1]] * 2 + [[1, 0, 1, 1]] * 2
    assert evaluation_mask([left], size=2).tolist() == [[1, 0]] * 2
    assert (
        evaluation_mask([np.full((3, 3), 0.5)]).shape == (224, 224)
        and not evaluation_mask([np.full((3, 3), 0.5)]).any()
    )


def test_a_photo_without_an_object_adds_background():
    results = MaskResults()
    results.add(0, "a", np.array([[1.0, 0.0]]), np.array([[1, 0]]))
    assert mask_figures(results, draws=2).scores["pxap"].value == 100
    results.add(1, "b", np.array([[1.0, 0.5]]), np.array([[0, 255]]))
    assert mask_figures(results, draws=2).scores["pxap"].value == 50


# ---- merging and intervals


def test_merging_in_any_order_gives_the_same_digits(tmp_path):
    whole = random_results(count=7)
    wanted = mask_figures(whole, draws=20)
    for order in ([[0, 1, 2], [3], [4, 5, 6]], [[6, 2], [5, 0, 3, 1], [4]]):
        merged = MaskResults()
        for indices in order:
            part = MaskResults()
            part._rows = {index: whole._rows[index] for index in indices}
            part.save(tmp_path / "part.npz")
            merged.merge(MaskResults.load(tmp_path / "part.npz"))
        assert mask_figures(merged, draws=20) == wanted


def test_intervals_against_a_plain_loop():
    first, second = random_results(), random_results(quality=0.8)
    one, two = first.table(), second.table()

    def pxap(table, chosen):
        return average_precision(sum(table.true[i] for i in chosen), sum(table.false[i] for i in chosen))

    generator, alone, differences = np.random.default_rng(4), [], []
    for _ in range(50):
        chosen = generator.integers(0, 8, 8)
        alone.append(pxap(one, chosen))
        differences.append(pxap(one, chosen) - pxap(two, chosen))
    figure = mask_figures(first, draws=50, seed=4).scores["pxap"]
    assert [figure.low, figure.high] == pytest.approx(np.percentile(alone, [2.5, 97.5]).tolist())
    found = paired_masks(first, second, draws=50, seed=4)
    assert [found.low, found.high] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist())
    assert found.value == pytest.approx(pxap(one, range(8)) - pxap(two, range(8))) and found.value > 0


def test_draws_without_an_object_are_left_out():
    results = MaskResults()
    results.add(0, "a", np.array([[0.9, 0.2]]), np.array([[1, 0]]))
    results.add(1, "b", np.array([[0.9, 0.2]]), np.array([[0, 0]]))
    figure = mask_figures(results, draws=50).scores["pxap"]
    assert figure.low == 50 and figure.high == 100
    assert bootstrap(lambda drawn: np.nan if drawn[0] == 0 else drawn[0], 2, draws=50)[0] >= 1


# ---- what cannot be used


@pytest.mark.parametrize(
    "heat, mask, error, complaint",
    [
        (np.array([[math.nan, 0.0]]), np.zeros((1, 2)), InputError, r"photo a: heat must be floats in \[0, 1\].*nan"),
        (np.array([[1.5, 0.0]]), np.zeros((1, 2)), InputError, "from 0 to 1.5"),
        (np.array([[1, 0]]), np.zeros((1, 2)), InputError, "got int64"),
        (np.zeros((2, 2)), np.zeros((2, 3)), InputError, r"of one size, got \(2, 2\) and \(2, 3\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), InputError, r"of one size, got \(0, 2\)"),
        (np.zeros((1, 2)), np.array([[2, 0]]), DatasetError, r"0, 1 and 255 only, got \[0, 2\]"),
    ],
)
def test_refuses_bad_photos(heat, mask, error, complaint):
    with pytest.raises(error, match=complaint) as caught:
        MaskResults().add(0, "a", heat, mask)
    assert "\n" not in str(caught.value)


def test_refuses_what_has_no_figure():
    results = MaskResults()
    with pytest.raises(DatasetError, match="got an empty split"):
        mask_figures(results)
    results.add(0, "a", np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(DatasetError, match="needs object pixels, got none in 1 photos"):
        mask_figures(results)
    with pytest.raises(DatasetError, match="with object pixels"):
        paired_masks(results, results)
    with pytest.raises(DatasetError, match="b has index 0, and so has a"):
        results.add(0, "b", np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(DatasetError, match="at least one instance mask"):
        evaluation_mask([])
    with pytest.raises(InputError, match="must start at 0"):
        MaskResults([0.5])
    with pytest.raises(DatasetError, match="the same photos"):
        paired_masks(random_results(count=3), random_results(count=4))
    with pytest.raises(InputError, match="differing lists"):
        paired_masks(
            random_results(), MaskResults.from_state(random_results().state() | {"thresholds": np.arange(0, 1, 0.1)})
        )
