"""Damaged lists, annotations and trees: one clear line for each problem, with file and line, and nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import photo, write

import trt_cam
from trt_cam.data.catalog import open_splits
from trt_cam.data.problems import inside
from trt_cam.data.samples import DataSet
from trt_cam.errors import DatasetError

WSOL_LISTS = "metadata/test"
LISTS = "ILSVRC2012_list"
NOTES = "Annotations/CLS-LOC/val"
FIRST = "001.A/a_1.jpg"
STEM = "ILSVRC2012_val_00000001"


def edit(path: Path, line: int, text: str) -> None:
    """Put another line in the place of one; the line after the last is added."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1 : line] = [text]
    write(path, lines)


def told(found: DataSet, **options: bool) -> list[str]:
    """The problems, as lines."""
    return [str(problem) for problem in found.problems(**options)]


# Builder, split, file, line, what is written there, what is said of it.
LINES = [
    ("cub", "test", "images.txt", 2, "2", "needs a number and a value, got '2'"),
    ("cub", "test", "images.txt", 2, "two a.jpg", "needs a number and a value, got 'two a.jpg'"),
    ("cub", "test", "images.txt", 2, "1 b.jpg", "photo 1 b.jpg stands in a line before"),
    ("cub", "test", "images.txt", 2, f"2 {trees.CUB_NAMES[1]}", "stands in a line before"),
    ("cub", "test", "images.txt", 2, "7 b.jpg", "photo 7 does not stand in train_test_split.txt"),
    ("cub", "test", "images.txt", 2, "2 ../b.jpg", "'../b.jpg' has .. in it"),
    ("cub", "test", "images.txt", 2, "2 /etc/passwd", "'/etc/passwd' is absolute"),
    ("cub", "test", "images.txt", 2, "2 C:\\b.jpg", "'C:\\\\b.jpg' has a drive letter"),
    ("cub", "test", "images.txt", 2, "2 a\\..\\..\\b.jpg", "has .. in it"),
    ("cub", "test", "images.txt", 2, "2 \\\\server\\b.jpg", "is absolute"),
    ("cub", "test", "train_test_split.txt", 2, "2 2", "needs <number> <1 for train, 0 for test>, got '2'"),
    ("cub", "test", "train_test_split.txt", 2, "1 0", "photo 1 stands in a line before"),
    ("cub", "test", "train_test_split.txt", 5, "5 0", "photo 5 does not stand in images.txt"),
    ("cub", "test", "classes.txt", 2, "1 002.Laysan_Albatross", "class 1 002.Laysan_Albatross stands in a line before"),
    ("cub", "test", "image_class_labels.txt", 2, "2 3", "unknown class '3': it is not in classes.txt"),
    ("cub", "test", "image_class_labels.txt", 2, "2 one", "unknown class 'one'"),
    ("cub", "test", "image_class_labels.txt", 2, "2 0", "unknown class '0'"),
    ("cub", "test", "image_class_labels.txt", 2, "9 1", "photo 9 does not stand in images.txt"),
    ("cub", "test", "image_class_labels.txt", 3, "2 1", "photo 2 has a label already"),
    ("cub", "test", "bounding_boxes.txt", 2, "2 0 0 39", "needs <number> <x> <y> <width> <height>, got '0 0 39'"),
    ("cub", "test", "bounding_boxes.txt", 2, "2 0 0 39 nan", "got '0 0 39 nan'"),
    ("cub", "test", "bounding_boxes.txt", 2, "2 0 0 39 1e999", "got '0 0 39 1e999'"),
    ("cub", "test", "bounding_boxes.txt", 2, "2 5 5 -3 4", "box 5 5 2 9 is inverted; needs x0 <= x1 and y0 <= y1"),
    ("cub", "test", "bounding_boxes.txt", 2, "9 0 0 1 1", "photo 9 does not stand in images.txt"),
    ("cub", "test", "bounding_boxes.txt", 3, "2 0 0 1 1", "photo 2 has a box already"),
    ("wsol", "test", f"{WSOL_LISTS}/image_ids.txt", 2, FIRST, f"{FIRST} stands in line 1 already"),
    ("wsol", "test", f"{WSOL_LISTS}/image_ids.txt", 4, "x/../../y.jpg", "'x/../../y.jpg' has .. in it"),
    ("wsol", "test", f"{WSOL_LISTS}/image_ids.txt", 4, "/y.jpg", "'/y.jpg' is absolute"),
    ("wsol", "test", f"{WSOL_LISTS}/image_ids.txt", 4, "y\0.jpg", "has NUL characters: it is no UTF-8 text"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 1, FIRST, f"needs <id> and 1 more after commas, got '{FIRST}'"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 1, f"{FIRST},x", "needs <id>,<label from 0>, got label 'x'"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 1, f"{FIRST},-1", "got label '-1'"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 1, f"{FIRST},1_0", "got label '1_0'"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 1, f"{FIRST},{'9' * 5000}", "got label '9999"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 4, f"{FIRST},0", f"{FIRST} has a label already"),
    ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", 4, "y.jpg,0", "'y.jpg' does not stand in image_ids.txt"),
    ("wsol", "test", f"{WSOL_LISTS}/image_sizes.txt", 1, f"{FIRST},40", f"'{FIRST.partition(',')[0]},40'"),
    ("wsol", "test", f"{WSOL_LISTS}/image_sizes.txt", 1, f"{FIRST},0,30", "needs <id>,<width>,<height>, got '0,30'"),
    ("wsol", "test", f"{WSOL_LISTS}/image_sizes.txt", 4, f"{FIRST},40,30", f"{FIRST} has a size already"),
    ("wsol", "test", f"{WSOL_LISTS}/localization.txt", 1, f"{FIRST},1,2,3", "needs <id>,<x0>,<y0>,<x1>,<y1> or"),
    ("wsol", "test", f"{WSOL_LISTS}/localization.txt", 1, f"{FIRST},1,2,3,x", "needs <id>,<x0>,<y0>,<x1>,<y1> or"),
    ("wsol", "test", f"{WSOL_LISTS}/localization.txt", 1, f"{FIRST},5,1,4,9", f"{FIRST}: box 5 1 4 9 is inverted"),
    (
        "wsol",
        "test",
        f"{WSOL_LISTS}/localization.txt",
        1,
        f"{FIRST},0,0,41,29",
        f"{FIRST}: box 0 0 41 29 leaves the photo, which is 40 wide and 30 high",
    ),
    ("wsol", "test", f"{WSOL_LISTS}/localization.txt", 1, f"{FIRST},-2,0,4,29", "leaves the photo"),
    ("wsol", "test", f"{WSOL_LISTS}/localization.txt", 5, "y.jpg,0,0,1,1", "'y.jpg' does not stand in image_ids.txt"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/a.JPEG", "needs <wnid>/<photo> <label> and four"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/a.JPEG 1 2 3 4", "needs <wnid>/<photo> <label> and"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/a.JPEG 1 a b c d", "four numbers a box"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/a.JPEG 1000 1 2 3 4", "unknown class 1000"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/a.JPEG 1 9 2 3 4", "is inverted"),
    ("ts_cam", "val", f"{LISTS}/val_folder_new.txt", 1, "n02102040/../../a.JPEG 1 1 2 3 4", "has .. in it"),
    (
        "ts_cam",
        "val",
        f"{LISTS}/val_folder_new.txt",
        2,
        "n01/a.JPEG 1 1 2 3 4",
        "label 1 is n02102040 in a line before",
    ),
    (
        "ts_cam",
        "val",
        f"{LISTS}/val_folder_new.txt",
        4,
        f"n02102040/{STEM}.JPEG 1 1 2 3 4",
        f"n02102040/{STEM}.JPEG stands in line 1 already",
    ),
    ("folders", "all", "boxes.csv", 1, "dog/a.jpg,1,2,3", "needs path,x0,y0,x1,y1, got 'dog/a.jpg,1,2,3'"),
    ("folders", "all", "boxes.csv", 2, "dog/a.jpg,1,2,3,x", "needs path,x0,y0,x1,y1, got 'dog/a.jpg,1,2,3,x'"),
    ("folders", "all", "boxes.csv", 1, "path,x0,y0,w,h", "needs the columns path,x0,y0,x1,y1, got 'path,x0,y0,w,h'"),
    ("folders", "all", "boxes.csv", 2, f"{'a' * 200_000},1,2,3,4", "needs path,x0,y0,x1,y1, got 'aaa"),  # csv's limit
    ("folders", "all", "boxes.csv", 1, "dog/b.jpg,1,2,3,4", "'dog/b.jpg' is no photo of split all"),
    ("folders", "all", "boxes.csv", 1, "dog/../dog/a.jpg,1,2,3,4", "'dog/../dog/a.jpg' is no photo of split all"),
    ("folders", "all", "boxes.csv", 1, "dog/a.jpg,5,2,3,4", "dog/a.jpg: box 5 2 3 4 is inverted"),
]


@pytest.mark.parametrize(
    ("build", "split", "name", "line", "text", "said"), LINES, ids=[f"{x[2]}-{x[4][:40]}" for x in LINES]
)
def test_a_broken_line(tmp_path: Path, build: str, split: str, name: str, line: int, text: str, said: str) -> None:
    getattr(trees, build)(tmp_path)
    if name == "boxes.csv":
        write(tmp_path / name, [f"{id},0,0,9,9" for id in ("dog/a.jpg", "cat/a.png", "cat/b.jpg", "cat/more/c.jpg")])
    whole = trt_cam.load_dataset(tmp_path, split=split)
    edit(tmp_path / name, line, text)
    check(tmp_path / name, line, said, len(whole), *open_splits(tmp_path, split=split))


def check(file: Path, line: int | None, said: str, photos: int, found: DataSet) -> None:
    """The strict reader stops with that line; a check tells it too, and every other photo is still read."""
    with pytest.raises(DatasetError) as caught:
        len(found)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: " if line else f"{file}: "), message
    assert said in message and len(message.splitlines()) == 1 and len(message) < 500, message
    assert message in told(found)
    assert found.counts()["samples"] >= photos - 1


@pytest.mark.parametrize(
    ("line", "text", "at", "said"),
    [
        (1, "<annotations>", 11, "is no whole XML (mismatched tag)"),
        (1, "", 3, "is no whole XML (junk after document element)"),
        (5, "<name></name>", 4, "object without a name"),
        (5, "<name>n09999999</name>", 7, "unknown class n09999999"),
        (8, "<xmin>9</xmin>", 4, "needs numbers xmin ymin xmax ymax, got '9 ? 38 29'"),
        (8, "<xmin>1</xmin><ymin>&#50;x</ymin>", 4, "got '1 2x 38 29'"),
        (8, "<xmin>39</xmin><ymin>2</ymin>", 7, "box 39 2 38 29 is inverted"),
        (8, "<xmin>-9</xmin><ymin>2</ymin>", 7, "box -9 2 38 29 leaves the photo, which is 40 wide and 30 high"),
        (
            1,
            "<!DOCTYPE annotation [<!ENTITY a SYSTEM '/etc/passwd'>]><annotation>",
            1,
            "has a document type or entities",
        ),
        (1, "<!DOCTYPE annotation><annotation>", 1, "has a document type or entities"),
        (1, "<?xml version='1.0' encoding='gbk'?><annotation>", 1, "is in an encoding that is not read (multi-byte"),
        (
            1,
            "<?xml version='1.0' encoding='none'?><annotation>",
            1,
            "not read (unknown encoding: none); save it as UTF",
        ),
        (5, "<name>&a;</name>", 5, "is no whole XML (undefined entity)"),
    ],
)
def test_a_broken_annotation(tmp_path: Path, line: int, text: str, at: int, said: str) -> None:
    file = trees.ilsvrc(tmp_path) / NOTES / f"{STEM}.xml"
    edit(file, line, text)
    check(file, at, said, 3, *open_splits(tmp_path, split="val"))


def test_entities_that_would_fill_the_memory_are_refused_at_once(tmp_path: Path) -> None:
    file = trees.ilsvrc(tmp_path) / NOTES / f"{STEM}.xml"
    bomb = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    edit(file, 1, f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{bomb}]><annotation>')
    edit(file, 5, "<name>&a11;</name>")
    check(file, 1, "has a document type or entities, which are not read", 3, *open_splits(tmp_path, split="val"))


# ---- files that are missing, empty or no files


@pytest.mark.parametrize(
    ("build", "split", "name", "said"),
    [
        ("cub", "test", "classes.txt", "is missing"),
        ("cub", "test", "image_class_labels.txt", "is missing"),
        ("cub", "test", "bounding_boxes.txt", "is missing"),
        ("wsol", "test", f"{WSOL_LISTS}/class_labels.txt", "is missing"),
    ],
)
def test_a_list_is_missing(tmp_path: Path, build: str, split: str, name: str, said: str) -> None:
    getattr(trees, build)(tmp_path)
    (tmp_path / name).unlink()
    check(tmp_path / name, None, said, 3, *open_splits(tmp_path, split=split))


def test_a_list_that_would_never_end(tmp_path: Path) -> None:
    trees.wsol(tmp_path)
    (tmp_path / WSOL_LISTS / "class_labels.txt").unlink()
    os.mkfifo(tmp_path / WSOL_LISTS / "class_labels.txt")
    check(tmp_path / WSOL_LISTS / "class_labels.txt", None, "is no file", 3, *open_splits(tmp_path))


def test_a_list_in_utf16(tmp_path: Path) -> None:
    file = trees.wsol(tmp_path) / WSOL_LISTS / "class_labels.txt"
    file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
    check(file, 1, "has NUL characters: it is no UTF-8 text; save it as UTF-8", 3, *open_splits(tmp_path))


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_an_empty_split(tmp_path: Path, text: str) -> None:
    trees.wsol(tmp_path)
    for name in ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"):
        (tmp_path / WSOL_LISTS / name).write_text(text, encoding="utf-8")
    (found,) = open_splits(tmp_path)
    check(tmp_path / WSOL_LISTS / "image_ids.txt", None, "has no photo in split test", 0, found)
    assert found.counts() == {"samples": 0, "classes": 0, "boxes": 0, "masks": 0, "without": 0}


def test_no_photo_is_in_the_split(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    write(tmp_path / "train_test_split.txt", ["1 1", "2 1", "3 1", "4 1"])
    check(tmp_path / "images.txt", None, "has no photo in split test", 0, *open_splits(tmp_path, split="test"))


def test_photos_that_cannot_be_opened(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    (tmp_path / "images" / trees.CUB_NAMES[2]).unlink()
    (tmp_path / "images" / trees.CUB_NAMES[4]).write_bytes(b"")
    (tmp_path / "images" / trees.CUB_NAMES[3]).unlink()
    (tmp_path / "images" / trees.CUB_NAMES[3]).mkdir()
    (tmp_path / "images" / trees.CUB_NAMES[1]).write_bytes(b"\xff\xd8\xff\xe0 cut short")
    train, test = open_splits(tmp_path)
    images = tmp_path / "images.txt"
    assert told(test) == [
        f"{images}:2: photo {test[0].path}: is missing",
        f"{images}:4: photo {test[1].path}: is empty (0 bytes)",
    ]
    assert told(train) == [f"{images}:3: photo {train[1].path}: is no file"]
    broken, folder = told(train, pictures=True)
    assert broken.startswith(f"{images}:1: photo {train[0].path} is not a picture") and folder == told(train)[0]
    assert len(test) == 2  # the samples are there all the same: training may leave them out


def test_masks_that_cannot_be_opened(tmp_path: Path) -> None:
    trees.openimages(tmp_path)
    (found,) = open_splits(tmp_path)
    mask, ignore = found[1].masks[1], found[0].ignore
    assert ignore is not None
    mask.unlink()
    ignore.write_bytes(b"no picture")
    ids = tmp_path / "metadata" / "OpenImages" / "val" / "image_ids.txt"
    assert f"{ids}:2: mask {mask}: is missing" in told(found)
    assert any(
        line.startswith(f"{ids}:1: ignored region {ignore} is not a picture") for line in told(found, pictures=True)
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("val/01226z/a.jpg,val/01226z/a_m01226z_7dab.png,", "val/01226z/a_m01226z_7dab.png stands twice for"),
        ("val/01226z/a.jpg,val/x.png,val/y.png", "val/01226z/a.jpg has an ignored region already"),
        ("val/x.jpg,val/x.png,", "'val/x.jpg' does not stand in image_ids.txt"),
        ("val/01226z/a.jpg,val/x.png", "needs <id>,<x0>,<y0>,<x1>,<y1> or <id>,<mask>,<ignored>"),
    ],
)
def test_broken_lists_of_masks(tmp_path: Path, line: str, said: str) -> None:
    file = trees.openimages(tmp_path) / "metadata" / "OpenImages" / "val" / "localization.txt"
    edit(file, 5, line)
    check(file, 5, said, 3, *open_splits(tmp_path))


@pytest.mark.parametrize("line", ["val/01226z/a.jpg,../x.png,", "val/0138tl/c.jpg,x.png,/etc/x.png"])
def test_masks_outside(tmp_path: Path, line: str) -> None:
    trees.openimages(tmp_path)
    lists = tmp_path / "metadata" / "OpenImages" / "val"
    edit(lists / "localization.txt", 5, line)
    row = list(trees.MASKS).index(line.partition(",")[0]) + 1
    check(lists / "image_ids.txt", row, "needs a name below the data set's folder", 3, *open_splits(tmp_path))


# ---- what does not fit together


def test_a_photo_that_lists_forget(tmp_path: Path) -> None:
    trees.wsol(tmp_path)
    ids = tmp_path / WSOL_LISTS / "image_ids.txt"
    for name in ("class_labels.txt", "image_sizes.txt"):
        file = tmp_path / WSOL_LISTS / name
        lines = file.read_text(encoding="utf-8").splitlines()
        write(file, lines[1:])
    (found,) = open_splits(tmp_path)
    check(ids, 1, f"{FIRST} has no label in {tmp_path / WSOL_LISTS / 'class_labels.txt'}", 3, found)
    assert f"{ids}:1: {FIRST} has no size in {tmp_path / WSOL_LISTS / 'image_sizes.txt'}" in told(found)


def test_a_photo_without_boxes_among_others(tmp_path: Path) -> None:
    trees.wsol(tmp_path)
    boxes = tmp_path / WSOL_LISTS / "localization.txt"
    lines = boxes.read_text(encoding="utf-8").splitlines()
    write(boxes, [line for line in lines if not line.startswith(FIRST)])
    found = trt_cam.load_dataset(tmp_path)  # the photo itself can be used
    assert found[0].boxes.shape == (0, 4)
    assert told(found) == [f"{tmp_path / WSOL_LISTS / 'image_ids.txt'}:1: {FIRST} has no box, others have"]
    assert found.counts()["without"] == 1


def test_a_class_without_a_number_is_not_the_class_of_number_0(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    write(tmp_path / "classes.txt", ["0 001.Black_footed_Albatross", "1 002.Laysan_Albatross"])
    write(tmp_path / "image_class_labels.txt", ["1 0", "2 0", "3 1", "4 one"])
    file = tmp_path / "image_class_labels.txt"
    check(file, 4, "unknown class 'one': it is not in classes.txt", 2, *open_splits(tmp_path, split="test"))


def test_cub_forgets(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    write(tmp_path / "bounding_boxes.txt", ["1 0 0 1 1", "3 0 0 1 1", "4 0 0 1 1"])
    write(tmp_path / "image_class_labels.txt", ["1 1", "3 2", "4 2"])
    (found,) = open_splits(tmp_path, split="test")
    name = trees.CUB_NAMES[2]
    check(tmp_path / "images.txt", 2, f"{name} has no label in {tmp_path / 'image_class_labels.txt'}", 2, found)
    assert f"{tmp_path / 'images.txt'}:2: {name} has no box in {tmp_path / 'bounding_boxes.txt'}" in told(found)


def test_classes_without_photos(tmp_path: Path) -> None:
    trees.cub(tmp_path / "cub")
    edit(tmp_path / "cub" / "classes.txt", 3, "3 003.Sooty_Albatross")
    found = trt_cam.load_dataset(tmp_path / "cub", split="test")
    assert told(found) == [f"{tmp_path / 'cub' / 'classes.txt'}:3: class 003.Sooty_Albatross has no photo"]
    trees.folders(tmp_path / "tree")
    (tmp_path / "tree" / "bird").mkdir()
    found = trt_cam.load_dataset(tmp_path / "tree")
    assert found.classes == ("bird", "cat", "dog")
    assert told(found) == [f"{tmp_path / 'tree' / 'bird'}: class bird has no photo"]


def test_the_classes_of_a_benchmark_are_known(tmp_path: Path) -> None:
    trees.wsol(tmp_path, "CUB")
    lists = tmp_path / "metadata" / "CUB" / "test"
    edit(lists / "class_labels.txt", 1, f"{FIRST},200")
    check(lists / "class_labels.txt", 1, "unknown class 200: the classes are 0 to 199", 3, *open_splits(tmp_path))


class TestIlsvrcVal:
    def test_a_photo_without_annotation(self, tmp_path: Path) -> None:
        file = trees.ilsvrc(tmp_path) / NOTES / f"{STEM}.xml"
        file.unlink()
        check(
            file,
            None,
            f"{STEM} needs one class, got none: this file is missing",
            3,
            *open_splits(tmp_path, split="val"),
        )

    def test_an_annotation_without_photo(self, tmp_path: Path) -> None:
        photo = trees.ilsvrc(tmp_path) / "val" / f"{STEM}.JPEG"
        photo.unlink()
        found = trt_cam.load_dataset(tmp_path, split="val")
        assert told(found) == [f"{tmp_path / NOTES / f'{STEM}.xml'}: photo {photo}: is missing"]

    def test_a_folder_that_contradicts(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, flat=False)
        wrong = tmp_path / "val" / "n01440764" / f"{STEM}.JPEG"
        (tmp_path / "val" / "n02102040" / f"{STEM}.JPEG").rename(wrong)
        file = tmp_path / NOTES / f"{STEM}.xml"
        check(file, None, f"{STEM} needs one class, got n01440764, n02102040", 3, *open_splits(tmp_path, split="val"))

    def test_a_photo_in_two_folders(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, flat=False)
        twice = photo(tmp_path / "val" / "n03000684" / f"{STEM}.JPEG")
        said = f"stands as val/n02102040/{STEM}.JPEG too"
        check(twice, None, said, 3, *open_splits(tmp_path, split="val"))

    def test_no_annotations_at_all(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, notes="nowhere/known")
        assert [found.split for found in open_splits(tmp_path)] == ["train"]
        photo(tmp_path / "val" / "n01440764" / "x.JPEG")
        (found,) = open_splits(tmp_path, split="val")
        check(tmp_path / "val" / f"{STEM}.JPEG", None, "lies in no class folder", 2, found)

    def test_a_class_that_is_named_twice(self, tmp_path: Path) -> None:
        file = write(trees.ilsvrc(tmp_path) / "LOC_synset_mapping.txt", [*trees.WNIDS, f"{trees.WNIDS[1]} again"])
        check(file, 4, f"{trees.WNIDS[1]} stands in line 2 already", 3, *open_splits(tmp_path, split="val"))

    def test_a_folder_of_no_class(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path)
        odd = photo(tmp_path / "train" / "others" / "x.JPEG")
        check(odd, None, "unknown class others", 6, *open_splits(tmp_path, split="train"))


@pytest.mark.parametrize("split", ["all", "val"])
def test_photos_beside_the_class_folders(tmp_path: Path, split: str) -> None:
    top = tmp_path / ("" if split == "all" else split)
    trees.folders(top)
    stray = photo(top / "stray.jpg")
    said = "lies beside the class folders, in none; move it, or read all as kind='photos'"
    check(stray, None, said, 4, *open_splits(tmp_path))
    assert len(trt_cam.load_dataset(tmp_path, kind="photos")) == 5


def test_boxes_without_area_and_outside_the_picture_itself(tmp_path: Path) -> None:
    trees.folders(tmp_path)
    rows = ["cat/a.png,0,0,40,30", "cat/b.jpg,1,1,1,9", "cat/more/c.jpg,0,0,42,30", "dog/a.jpg,0,0,41,31"]
    write(tmp_path / "boxes.csv", rows)
    found = trt_cam.load_dataset(tmp_path)
    assert told(found) == [f"{tmp_path / 'boxes.csv'}:2: cat/b.jpg: box 1 1 1 9 has no area"]
    assert told(found, pictures=True)[1:] == [
        f"{tmp_path / 'cat/more/c.jpg'}: cat/more/c.jpg: box 0 0 42 30 leaves the photo, which is 40 wide and 30 high"
    ]


def test_a_turned_photo(tmp_path: Path) -> None:
    trees.wsol(tmp_path)
    photo(tmp_path / FIRST, (30, 40))
    found = trt_cam.load_dataset(tmp_path)
    (line,) = told(found, pictures=True)
    said = f"photo {tmp_path / FIRST} is 30 wide and 40 high, its boxes are for 40 by 30: it is turned"
    assert line == f"{tmp_path / WSOL_LISTS / 'image_ids.txt'}:1: {said}"
    photo(tmp_path / FIRST, (30, 30))  # squashed, as ILSVRC is often stored: no fault
    assert told(found, pictures=True) == []


@pytest.mark.parametrize("build", ["cub", "wsol", "ilsvrc", "ts_cam", "openimages"])
def test_any_damage_ends_in_a_line(tmp_path: Path, build: str) -> None:
    """Bytes changed, cut, doubled or made up: a check tells what it finds, a reader reads or stops with a place."""
    root = getattr(trees, build)(tmp_path / "data")
    lists = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".xml"))
    before = {path: path.read_bytes() for path in lists}
    rng, stopped = np.random.default_rng(0), 0
    for _ in range(60):
        path = lists[rng.integers(len(lists))]
        text = bytearray(before[path])
        at, to = sorted(rng.integers(0, len(text), 2))
        change = rng.integers(4)
        if change == 0:
            text[at] = rng.integers(256)
        elif change == 1:
            del text[at:to]
        elif change == 2:
            text[at:at] = text[at:to]
        else:
            text[at:at] = [b"..", b"\xff", b"\0", b"-", b"9" * 40, b"/", b",", b" ", b"<!--"][rng.integers(9)]
        path.write_bytes(text)
        for found in open_splits(root):
            lines = told(found)
            assert all(line.isprintable() and line.startswith(str(root)) for line in lines)
            try:
                assert [sample.label is not None for sample in found] == [True] * len(found)
            except DatasetError as error:
                stopped += 1
                assert str(error) in lines
        path.write_bytes(before[path])
    assert stopped > 20


# ---- names that lead out of the folder


@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "a/..", "..", "", " ", "C:/x.jpg", "c:x", "\\x", "a\\..\\b", "a\0b"]
)
def test_inside_refuses(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="list.txt:7: needs (a name below|the name of)"):
        inside(tmp_path, name, Path("list.txt"), 7)


@pytest.mark.parametrize(
    "name", ["x.jpg", "a/b/c.jpg", "..x/y..", "a..b", "./x.jpg", "größe/ü.jpg", "a b/,.jpg", "ab:c"]
)
def test_inside_allows(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name


def secret(tmp_path: Path) -> Path:
    """A folder beside the data set, with a photo and lists."""
    return trees.cub(tmp_path / "secret")


Link = Callable[[Path, Path], Path]


def link_photo(root: Path, other: Path) -> Path:
    name = root / "images" / trees.CUB_NAMES[2]
    name.unlink()
    name.symlink_to(other / "images" / trees.CUB_NAMES[2])
    return name


def link_class(root: Path, other: Path) -> Path:
    name = root / "images" / "001.Black_footed_Albatross"
    name.rename(root / "moved")
    name.symlink_to(other / "images" / name.name)
    return name


def link_all_photos(root: Path, other: Path) -> Path:
    (root / "images").rename(root / "moved")
    (root / "images").symlink_to(other / "images")
    return root / "images"


@pytest.mark.parametrize("link", [link_photo, link_class, link_all_photos])
@pytest.mark.parametrize("relative", [False, True])
def test_a_photo_behind_a_link(tmp_path: Path, link: Link, relative: bool) -> None:
    other, root = secret(tmp_path), trees.cub(tmp_path / "data")
    name = link(root, other)
    if relative:
        target = os.path.relpath(name.readlink(), name.parent)
        name.unlink()
        name.symlink_to(target)
    found = trt_cam.load_dataset(root, split="test")
    with pytest.raises(DatasetError) as caught:
        found[0]
    assert str(caught.value).startswith(f"{root / 'images.txt'}:2: ") and "is a link out of" in str(caught.value)
    assert any("is a link out of" in line for line in told(found, pictures=True))


@pytest.mark.parametrize("name", ["images.txt", "bounding_boxes.txt"])
def test_a_list_behind_a_link(tmp_path: Path, name: str) -> None:
    other, root = secret(tmp_path), trees.cub(tmp_path / "data")
    (root / name).unlink()
    (root / name).symlink_to(other / name)
    (found,) = open_splits(root, split="test")
    check(root / name, None, "is a link out of", 1 if name == "images.txt" else 2, found)


def test_links_within_the_folder_and_to_it(tmp_path: Path) -> None:
    root = trees.cub(tmp_path / "data")
    (root / "images").rename(root / "stored")
    (root / "images").symlink_to("stored")
    (tmp_path / "link").symlink_to(root)
    found = trt_cam.load_dataset(tmp_path / "link", split="test")
    assert told(found, pictures=True) == [] and found[0].path.is_file()


def test_a_folder_beside_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    trees.cub(tmp_path / "data-secret")
    root = trees.cub(tmp_path / "data")
    link_photo(root, tmp_path / "data-secret")
    with pytest.raises(DatasetError, match="is a link out of"):
        trt_cam.load_dataset(root, split="test")[0]


def test_class_folders_behind_links(tmp_path: Path) -> None:
    root = trees.folders(tmp_path / "data")
    trees.folders(tmp_path / "other")
    (root / "dog").rename(tmp_path / "dog")
    (root / "dog").symlink_to(tmp_path / "dog")
    check(root / "dog", None, "is a link out of", 4, *open_splits(root, kind="folders"))
    (root / "dog").unlink()
    (root / "dog").symlink_to("cat")  # within: both classes
    assert trt_cam.load_dataset(root).labels().tolist() == [0, 0, 0, 1, 1, 1]
    (root / "cat" / "again").symlink_to(root)
    (found,) = open_splits(root)
    check(root / "cat" / "again", None, "is a link to a folder that it lies in", 6, found)


def test_a_link_that_was_not_followed_is_named(tmp_path: Path) -> None:
    trees.folders(tmp_path / "other" / "train")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "other" / "train")
    with pytest.raises(DatasetError, match="not followed, because they are links out of it: train"):
        trt_cam.load_dataset(tmp_path / "data")


def test_a_message_is_one_line_and_moves_no_cursor(tmp_path: Path) -> None:
    trees.folders(tmp_path)
    odd = tmp_path / "cat" / "a\nb\x1b[2J.jpg"
    odd.write_bytes(b"")
    (problem,) = trt_cam.load_dataset(tmp_path).problems()
    assert "a\\nb\\x1b[2J.jpg: is empty" in str(problem) and str(problem).isprintable()
