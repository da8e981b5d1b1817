"""The readers on real data sets."""

from __future__ import annotations

import cProfile
from collections import Counter
from pathlib import Path

import pytest
import trees

import trt_cam
from trt_cam.data.catalog import open_splits


def by_hand(file: Path, values: int) -> dict[str, list[tuple[float, ...]]]:
    """The numbers that follow each id of a list, read another way."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for line in file.read_text().split("\n"):
        parts = line.split(",")
        if len(parts) == values + 1:
            found.setdefault(parts[0], []).append(tuple(map(float, parts[1:])))
    return found


def test_ilsvrc_by_the_lists_of_wsolevaluation(shared: Path) -> None:
    root = shared / "data" / "ilsvrc-10"
    found = trt_cam.load_dataset(root)
    assert (found.kind, found.split, len(found), found.counts()["boxes"]) == ("wsol", "test", 500, 813)
    lists = root / "metadata" / "test"
    labels, sizes, boxes = (
        by_hand(lists / name, values)
        for name, values in (("class_labels.txt", 1), ("image_sizes.txt", 2), ("localization.txt", 4))
    )
    assert set(found.ids) == set(labels) == set(sizes) == set(boxes)
    for sample in found:
        assert sample.path == root / sample.id and sample.path.is_file()
        assert [(sample.label,)] == labels[sample.id]
        assert sample.size is not None and [sample.size[::-1]] == sizes[sample.id]
        assert list(map(tuple, sample.boxes.tolist())) == boxes[sample.id]
    assert list(found.problems(pictures=True)) == []


def test_ilsvrc_for_training(shared: Path) -> None:
    found = trt_cam.load_dataset(shared / "data" / "ilsvrc-10" / "train")
    assert (found.kind, len(found), found.num_classes) == ("folders", 4000, 10)
    assert Counter(found.labels().tolist()) == {label: 400 for label in range(10)}
    assert found.classes == tuple(sorted(found.classes or ()))
    assert list(found.problems()) == []
    same = trt_cam.load_dataset(shared / "data" / "ilsvrc-10", kind="ilsvrc", split="train")
    assert [sample.path for sample in same] == [sample.path for sample in found]
    assert same.labels().tolist() == found.labels().tolist()


def test_one_photo_of_each_class(shared: Path) -> None:
    found = trt_cam.load_dataset(shared / "data" / "imagenet-1k-sample")
    assert (len(found), found.num_classes, found.labels().tolist()) == (1000, 1000, list(range(1000)))
    assert list(found.problems()) == []
    # The sorted WordNet ids count as the benchmark's labels do.
    lists = trt_cam.load_dataset(shared / "data" / "ilsvrc-10")
    assert found.classes is not None and found.classes[lists[0].label or 0] == "n01440764"


def test_photos(shared: Path) -> None:
    found = trt_cam.load_dataset(shared / "data" / "photos")
    assert (found.kind, list(found.ids)) == ("photos", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
    assert list(found.problems(pictures=True)) == []


def calls_to_read(root: Path, photos: int) -> int:
    """How many functions are called, those of C too, to read a benchmark's lists."""
    lists = root / str(photos) / "metadata" / "ILSVRC" / "test"
    ids = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, photos + 1)]
    trees.write(lists / "image_ids.txt", ids)
    trees.write(lists / "class_labels.txt", (f"{id},{at % 1000}" for at, id in enumerate(ids)))
    trees.write(lists / "image_sizes.txt", (f"{id},500,375" for id in ids))
    trees.write(lists / "localization.txt", (f"{id},1,2,{30 + at % 9},40" for at in range(2) for id in ids))
    with cProfile.Profile() as profile:
        found = trt_cam.load_dataset(root / str(photos))
        assert len(found) == photos and found[0].boxes.tolist() == [[1, 2, 30, 40], [1, 2, 31, 40]]
    return sum(entry.callcount for entry in profile.getstats())


def test_work_grows_with_the_photos_and_no_faster(tmp_path: Path) -> None:
    assert calls_to_read(tmp_path, 4000) < 4.2 * calls_to_read(tmp_path, 1000)


@pytest.mark.parametrize("name", ["ilsvrc-10", "ilsvrc-10/train", "imagenet-1k-sample", "photos"])
def test_each_is_whole(shared: Path, name: str) -> None:
    for found in open_splits(shared / "data" / name):
        assert list(found.problems()) == []
