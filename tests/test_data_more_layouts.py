"""Tiny-ImageNet, Caltech-101, PASCAL VOC, COCO and YOLO: layouts, damage, real data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from scipy.io import savemat
from test_data_damage import check, edit, told
from test_data_layouts import clean, fields
from trees import WNIDS, H, W, photo, write

import trt_cam
from trt_cam.data.catalog import open_splits
from trt_cam.errors import DatasetError, InputError


class TestTinyImageNet:
    def test_train(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.tiny(tmp_path), split="train")
        assert fields(found) == [
            (
                f"{w}_{i}.JPEG",
                tmp_path / "train" / w / "images" / f"{w}_{i}.JPEG",
                at,
                [(i, 1, 50, 60)],
                (64, 64),
                (),
                None,
            )
            for at, w in enumerate(WNIDS)
            for i in (0, 10)
        ]
        assert (found.kind, found.classes, found.inclusive) == ("tiny-imagenet", WNIDS, True)
        assert clean(found)

    def test_val_and_test(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.tiny(tmp_path), split="val")
        assert fields(found) == [
            (name, tmp_path / "val" / "images" / name, WNIDS.index(wnid), [box], (64, 64), (), None)
            for name, (wnid, box) in trees.TINY_VAL.items()
        ]
        assert clean(found)
        test = trt_cam.load_dataset(tmp_path, split="test")
        assert fields(test) == [("test_0.JPEG", tmp_path / "test/images/test_0.JPEG", None, [], None, (), None)]
        assert test.splits() == ("train", "val", "test")

    @pytest.mark.parametrize(
        ("name", "line", "text", "said"),
        [
            ("wnids.txt", 2, WNIDS[2], f"{WNIDS[2]} stands in line 1 already"),
            ("val/val_annotations.txt", 1, "val_0.JPEG\tn0\t1\t2\t3\t4", "unknown class 'n0': it is not in wnids.txt"),
            ("val/val_annotations.txt", 1, "val_0.JPEG", "needs <photo> <wnid> <x0> <y0> <x1> <y1>, got 'val_0.JPEG'"),
            ("val/val_annotations.txt", 1, f"val_0.JPEG\t{WNIDS[0]}\t1\t2\t3", "needs <photo> <wnid>"),
            ("val/val_annotations.txt", 1, f"val_0.JPEG\t{WNIDS[0]}\t9\t2\t3\t4", "is inverted"),
            (
                "val/val_annotations.txt",
                1,
                f"val_0.JPEG\t{WNIDS[0]}\t1\t2\t3\t65",
                "leaves the photo, which is 64 wide",
            ),
            ("val/val_annotations.txt", 2, f"val_0.JPEG\t{WNIDS[0]}\t1\t2\t3\t4", "stands in line 1 already"),
            ("val/val_annotations.txt", 2, f"../x.JPEG\t{WNIDS[0]}\t1\t2\t3\t4", "has .. in it"),
        ],
    )
    def test_damage(self, tmp_path: Path, name: str, line: int, text: str, said: str) -> None:
        edit(trees.tiny(tmp_path) / name, line, text)
        check(tmp_path / name, line, said, 3, *open_splits(tmp_path, split="val"))

    def test_damage_of_train(self, tmp_path: Path) -> None:
        trees.tiny(tmp_path)
        (tmp_path / "train" / WNIDS[1] / f"{WNIDS[1]}_boxes.txt").unlink()
        (found,) = open_splits(tmp_path, split="train")
        check(tmp_path / "train" / WNIDS[1] / f"{WNIDS[1]}_boxes.txt", None, "is missing", 5, found)
        assert f"{tmp_path / 'wnids.txt'}:2: class {WNIDS[1]} has no photo" in told(found)
        trees.tiny(tmp_path)
        photo(tmp_path / "train" / "n9" / "images" / "x.JPEG")
        check(tmp_path / "train" / "n9", None, "unknown class n9: it is not in wnids.txt", 6, found)

    def test_classes_that_lead_out_of_the_folder(self, tmp_path: Path) -> None:
        root = trees.tiny(tmp_path / "inner" / "data")
        (tmp_path / "inner" / "x").mkdir()
        write(tmp_path / "x_boxes.txt", ["secret"])
        edit(root / "wnids.txt", 4, "../../x")
        name = root / "train" / "../../x" / "../../x_boxes.txt"
        assert name.is_file()
        (found,) = open_splits(root, split="train")
        check(name, None, "needs a name below the data set's folder, but 'train/../../x/", 6, found)
        assert "secret" not in " ".join(told(found))


class TestVoc:
    @pytest.mark.parametrize("inner", ["VOCdevkit/VOC2007", "VOC2012", ""])
    def test_every_field(self, tmp_path: Path, inner: str) -> None:
        found = trt_cam.load_dataset(trees.voc(tmp_path, inner), split="val")
        photos = tmp_path / inner / "JPEGImages"
        cats, dogs = [(0, 0, 39, 29), (2, 3, 4, 5)], [(1, 1, 8, 8)]
        assert fields(found) == [
            ("000002.jpg#cat", photos / "000002.jpg", 0, cats, (H, W), (), None),
            ("000002.jpg#dog", photos / "000002.jpg", 1, dogs, (H, W), (), None),
            ("000003.jpg", photos / "000003.jpg", None, [], (H, W), (), None),
        ]
        assert (found.kind, found.classes, found.inclusive) == ("voc", ("cat", "dog", "pottedplant"), True)
        assert found.splits() == ("train", "val") and found.name == (inner.rpartition("/")[2] or tmp_path.name)
        assert len(told(found, pictures=True)) == 1  # no potted plant

    def test_classes_of_all_objects_where_no_list_names_them(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.voc(tmp_path, classes=False), split="train")
        assert (found.classes, found.labels().tolist()) == (("cat", "dog"), [1])

    def test_without_lists(self, tmp_path: Path) -> None:
        trees.voc(tmp_path, "", classes=False)
        for name in ("train", "val"):
            (tmp_path / "ImageSets" / "Main" / f"{name}.txt").unlink()
        text = (tmp_path / "Annotations" / "000001.xml").read_text()
        (tmp_path / "Annotations" / "000001.xml").write_text(text.replace(">000001.jpg<", "><"))  # then it is .jpg
        (tmp_path / "JPEGImages" / "000003.jpg").rename(tmp_path / "JPEGImages" / "000003.png")
        text = (tmp_path / "Annotations" / "000003.xml").read_text()
        (tmp_path / "Annotations" / "000003.xml").write_text(text.replace(">000003.jpg<", ">C:\\x\\000003.png<"))
        found = trt_cam.load_dataset(tmp_path)
        names = ["000001.jpg", "000002.jpg", "000002.jpg", "000003.png"]
        assert (found.split, [s.path.name for s in found]) == ("all", names)
        assert clean(found)

    def test_several_years(self, tmp_path: Path) -> None:
        for year in (2007, 2012):
            trees.voc(tmp_path, f"VOCdevkit/VOC{year}")
        with pytest.raises(InputError, match="has VOC2007, VOC2012; name one with name="):
            trt_cam.load_dataset(tmp_path, split="val")
        assert trt_cam.load_dataset(tmp_path, split="val", name="VOC2012").name == "VOC2012"
        with pytest.raises(InputError, match="has no 'VOC2008'; it has VOC2007, VOC2012"):
            trt_cam.load_dataset(tmp_path, kind="voc", name="VOC2008")

    @pytest.mark.parametrize(
        ("name", "line", "text", "at", "said"),
        [
            ("ImageSets/Main/val.txt", 2, "000002", 2, "000002 stands in line 1 already"),
            ("ImageSets/Main/val.txt", 2, "000009", 2, "'000009' has no file in"),
            ("ImageSets/Main/val.txt", 2, "../000002", 2, "'../000002' has no file in"),
            ("Annotations/000002.xml", 5, "<name>cow</name>", 7, "unknown class 'cow': it has no list in"),
            ("Annotations/000002.xml", 8, "<xmin>99</xmin><ymin>2</ymin>", 7, "box 98 1 39 29 is inverted"),
            ("Annotations/000002.xml", 1, "<!DOCTYPE a><annotation>", 1, "has a document type or entities"),
            ("Annotations/000002.xml", 1, "<a/>", 2, "is no whole XML"),
        ],
    )
    def test_damage(self, tmp_path: Path, name: str, line: int, text: str, at: int, said: str) -> None:
        edit(trees.voc(tmp_path, "") / name, line, text)
        check(tmp_path / name, at, said, 2, *open_splits(tmp_path, split="val"))

    def test_another_document(self, tmp_path: Path) -> None:
        write(trees.voc(tmp_path, "") / "Annotations" / "000003.xml", ["<svg/>"])
        (found,) = open_splits(tmp_path, split="val")
        check(tmp_path / "Annotations" / "000003.xml", 1, "needs <annotation>, got <svg>", 3, found)

    def test_a_photo_of_two_classes_is_missed_once(self, tmp_path: Path) -> None:
        trees.voc(tmp_path, "", classes=False)
        (tmp_path / "JPEGImages" / "000002.jpg").unlink()
        found = trt_cam.load_dataset(tmp_path, split="val")
        path = tmp_path / "JPEGImages" / "000002.jpg"
        assert told(found) == [f"{tmp_path / 'ImageSets/Main/val.txt'}:1: photo {path}: is missing"]


class TestCoco:
    @pytest.mark.parametrize(
        ("file", "photos", "split"),
        [
            ("annotations/instances_val2017.json", "val2017", "val2017"),
            ("annotations/instances_val2017.json", "images/val2017", "val2017"),
            ("annotations/mine.json", "images", "mine"),
            ("annotations/mine.json", "", "mine"),
            ("valid/_annotations.coco.json", "valid", "valid"),
        ],
    )
    def test_every_field(self, tmp_path: Path, file: str, photos: str, split: str) -> None:
        trees.coco(tmp_path, file, photos)
        if "instances" in file:
            write(tmp_path / "annotations" / "captions_val2017.json", ["{}"])
        found = trt_cam.load_dataset(tmp_path)
        folder = tmp_path / photos
        assert fields(found) == [
            ("a.jpg#dog", folder / "a.jpg", 1, [(1.5, 2, 11.5, 22.25), (5, 5, 11, 11)], (H, W), (), None),
            ("a.jpg#car", folder / "a.jpg", 0, [(3, 3, 4, 4)], (H, W), (), None),
            ("sub/b.jpg#car", folder / "sub/b.jpg", 0, [(0, 0, W, H)], (H, W), (), None),
            ("c.jpg", folder / "c.jpg", None, [], None, (), None),
        ]
        assert (found.kind, found.split, found.classes, found.inclusive) == ("coco", split, ("car", "dog"), False)
        assert clean(found)

    def test_photos_elsewhere(self, tmp_path: Path) -> None:
        trees.coco(tmp_path / "lists", photos="../photos")
        found = trt_cam.load_dataset(tmp_path / "lists", photos_root=tmp_path / "photos")
        assert clean(found) and found[0].path == tmp_path / "photos" / "a.jpg"

    @pytest.mark.parametrize(
        ("key", "at", "change", "said"),
        [
            ("categories", 1, {"id": 18}, "categories[1]: category 18 car stands before"),
            ("categories", 1, {"name": "dog"}, "categories[1]: category 3 dog stands before"),
            ("categories", 1, {"name": None}, "categories[1]: needs a number id and a name, got 3 and None"),
            ("images", 0, {"id": True}, "images[0]: needs a number id and a file_name, got True and 'a.jpg'"),
            ("images", 0, {"id": [1]}, "images[0]: needs a number id and a file_name, got [1] and 'a.jpg'"),
            ("images", 1, {"id": 7}, "images[1]: image 7 sub/b.jpg stands before"),
            ("images", 1, {"file_name": "a.jpg"}, "images[1]: image 2 a.jpg stands before"),
            ("images", 0, {"width": 0}, "images[0]: needs a positive height and width, got (30, 0)"),
            ("images", 0, {"height": 10**40}, "images[0]: needs a positive height and width, got (1000"),
            ("images", 1, {"file_name": "../b.jpg"}, "'../b.jpg' has .. in it"),
            ("images", 1, {"file_name": "/etc/passwd"}, "'/etc/passwd' is absolute"),
            ("images", 1, {"file_name": "\ud800.jpg"}, "has letters that none can have"),
            ("images", 1, {"file_name": "a\0.jpg"}, "has a NUL character"),
            ("annotations", 1, {"image_id": 8}, "annotations[1]: image 8 is not among the images"),
            ("annotations", 1, {"image_id": {}}, "annotations[1]: image {} is not among the images"),
            ("annotations", 1, {"category_id": 4}, "annotations[1]: unknown class 4: it is not among the categories"),
            ("annotations", 1, {"bbox": [1, 2, 3]}, "annotations[1]: needs bbox [x, y, width, height], got [1, 2, 3]"),
            ("annotations", 1, {"bbox": [1, 2, 3, "4"]}, "annotations[1]: needs bbox"),
            ("annotations", 1, {"bbox": [1, 2, 3, float("nan")]}, "annotations[1]: needs bbox"),
            ("annotations", 1, {"bbox": [1, 2, 3, 10**400]}, "annotations[1]: needs bbox"),
            ("annotations", 1, {"bbox": [9, 9, -3, 4]}, "sub/b.jpg#car: box 9 9 6 13 is inverted"),
            ("annotations", 1, {"bbox": [9, 9, 90, 4]}, "sub/b.jpg#car: box 9 9 99 13 leaves the photo"),
        ],
    )
    def test_damage(self, tmp_path: Path, key: str, at: int, change: dict[str, Any], said: str) -> None:
        trees.coco(tmp_path)
        content: Any = json.loads(json.dumps(trees.COCO))
        content[key][at].update(change)
        file = write(tmp_path / "annotations" / "instances_val2017.json", [json.dumps(content)])
        check(file, None, said, 1, *open_splits(tmp_path))

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("{\n", 2, "is no whole JSON"),
            ("[]", None, "needs an object with images, annotations and categories, got list"),
            ("{}", None, "needs a list 'categories', got none"),
            ('{"categories": [], "images": {}}', None, "needs a list 'images', got dict"),
            ('{"categories": [3]}', None, "categories[0]: needs an object, got int"),
        ],
    )
    def test_broken_json(self, tmp_path: Path, text: str, line: int | None, said: str) -> None:
        file = trees.coco(tmp_path) / "annotations" / "instances_val2017.json"
        file.write_text(text)
        check(file, line, said, 0, *open_splits(tmp_path))

    def test_a_box_without_area(self, tmp_path: Path) -> None:  # COCO itself has some
        trees.coco(tmp_path)
        content: Any = json.loads(json.dumps(trees.COCO))
        content["annotations"][1]["bbox"] = [9, 9, 3, 0]
        file = write(tmp_path / "annotations" / "instances_val2017.json", [json.dumps(content)])
        assert told(trt_cam.load_dataset(tmp_path)) == [f"{file}: sub/b.jpg#car: box 9 9 12 9 has no area"]


class TestYolo:
    @pytest.mark.parametrize(
        ("images", "labels", "split"),
        [
            ("images/train", "labels/train", "train"),
            ("valid/images", "valid/labels", "valid"),
            ("images", "labels", "all"),
        ],
    )
    def test_every_field(self, tmp_path: Path, images: str, labels: str, split: str) -> None:
        found = trt_cam.load_dataset(trees.yolo(tmp_path, images, labels))
        photos = tmp_path / images
        dogs, cats = [(0, 0, 1, 1), (0, 0, 0.25, 0.25)], [(0, 0.375, 0.5, 0.625)]
        assert fields(found) == [
            ("a.jpg#dog", photos / "a.jpg", 1, dogs, (1, 1), (), None),
            ("a.jpg#cat", photos / "a.jpg", 0, cats, (1, 1), (), None),
            ("c.jpg", photos / "c.jpg", None, [], (1, 1), (), None),
            ("deep/b.png", photos / "deep" / "b.png", None, [], (1, 1), (), None),
        ]
        assert (found.kind, found.split, found.classes, found.inclusive) == ("yolo", split, ("cat", "dog"), False)
        assert clean(found)

    @pytest.mark.parametrize("name", ["coco8.yaml", "data.yml"])
    def test_names_by_number(self, tmp_path: Path, name: str) -> None:
        (trees.yolo(tmp_path) / "data.yaml").unlink()
        write(tmp_path / name, ["names:", "  0: cat", "  1: 7"])
        assert trt_cam.load_dataset(tmp_path).classes == ("cat", "7")

    @pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels/classes.txt"])
    def test_names_in_a_list(self, tmp_path: Path, name: str) -> None:
        (trees.yolo(tmp_path) / "data.yaml").unlink()
        write(tmp_path / name, ["cat", "guide dog"])
        found = trt_cam.load_dataset(tmp_path)
        assert found.classes == ("cat", "guide dog") and clean(found)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("2 0.5 0.5 1 1", "unknown class 2: there are 2 names"),
            ("-1 0.5 0.5 1 1", "unknown class -1"),
            ("1.0 0.5 0.5 1 1", "needs <class> <centre x> <centre y> <width> <height>, got '1.0 0.5 0.5 1 1'"),
            ("1 0.5 0.5 1", "needs <class>"),
            ("1 0.5 0.5 1 1 0.9", "needs <class>"),
            ("1 0.5 nan 1 1", "needs <class>"),
            ("1 0.5 0.5 -0.5 1", "is inverted"),
            ("1 0.9 0.5 0.5 1", "needs a box within the photo, as shares of it, got '1 0.9 0.5 0.5 1'"),
            ("1 20 15 10 10", "needs a box within the photo, as shares of it"),
        ],
    )
    def test_damage(self, tmp_path: Path, text: str, said: str) -> None:
        file = trees.yolo(tmp_path) / "labels" / "train" / "a.txt"
        edit(file, 2, text)
        check(file, 2, said, 3, *open_splits(tmp_path))

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("names: [a\n", 2, "is no whole YAML"),
            ("nc: 2", None, "needs names: a list of them, or each after its number from 0"),
            ("names: {0: a, 2: b}", None, "needs names: a list"),
            ("names: [[a], b]", None, "needs names: a list"),
            ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", 2, "has an alias (*name), which is not read"),
            ("names: !!python/object/apply:os.system ['touch /tmp/x']", 1, "is no whole YAML"),
        ],
    )
    def test_broken_names(self, tmp_path: Path, text: str, line: int | None, said: str) -> None:
        file = trees.yolo(tmp_path) / "data.yaml"
        file.write_text(text)
        check(file, line, said, 2, *open_splits(tmp_path))

    def test_photos_of_one_name_have_the_same_labels(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        photo(tmp_path / "images" / "train" / "a.png")
        found = trt_cam.load_dataset(tmp_path)
        ids = [f"a.{suffix}#{name}" for suffix in ("jpg", "png") for name in ("dog", "cat")]
        assert [s.id for s in found][:4] == ids and found[0].boxes.tolist() == found[2].boxes.tolist()
        assert clean(found)

    def test_labels_in_a_circle(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        (tmp_path / "labels" / "train" / "again").symlink_to(tmp_path / "labels" / "train")
        assert told(trt_cam.load_dataset(tmp_path)) == []

    def test_a_name_of_two_classes(self, tmp_path: Path) -> None:
        file = write(trees.yolo(tmp_path) / "data.yaml", ["names: [cat, cat]"])
        found = trt_cam.load_dataset(tmp_path)  # it can be used: the labels tell them apart
        assert found.labels().tolist() == [1, 0, -1, -1]
        assert told(found) == [f"{file}: class 1 cat has the name of class 0"]

    def test_no_names_and_labels_without_photos(self, tmp_path: Path) -> None:
        trees.yolo(tmp_path)
        write(tmp_path / "labels" / "train" / "z.txt", ["0 0.5 0.5 1 1"])
        said = f"has no photo in {tmp_path / 'images' / 'train'}"
        assert told(trt_cam.load_dataset(tmp_path)) == [f"{tmp_path / 'labels/train/z.txt'}: {said}"]
        (tmp_path / "data.yaml").unlink()
        check(tmp_path / "data.yaml", None, "is missing, and so are classes.txt", 2, *open_splits(tmp_path))


class TestCaltech:
    def test_every_field(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.caltech(tmp_path))
        photos = tmp_path / "101_ObjectCategories"
        wanted = [
            (f"{name}/image_000{i}.jpg", at, (2 + i, 1, 29, 19))
            for at, name in enumerate(("Faces", "ant"))
            for i in (1, 2)
        ]
        assert fields(found) == [(id, photos / id, label, [box], None, (), None) for id, label, box in wanted]
        assert (found.kind, found.classes, found.inclusive) == ("caltech-101", ("Faces", "ant"), True)
        assert clean(found)

    def test_without_boxes(self, tmp_path: Path) -> None:
        trees.caltech(tmp_path, boxes=False)
        for root in (tmp_path, tmp_path / "101_ObjectCategories"):
            found = trt_cam.load_dataset(root)
            assert (found.kind, len(found), found.counts()["boxes"]) == ("caltech-101", 4, 0)
            assert clean(found)

    @pytest.mark.parametrize(
        "content", [b"", b"MATLAB 5.0 MAT-file" + b"\0" * 200, b"\x80\x04cos\nsystem\n", None, "three", "nan"]
    )
    def test_damage(self, tmp_path: Path, content: bytes | str | None) -> None:
        file = trees.caltech(tmp_path) / "Annotations" / "ant" / "annotation_0002.mat"
        if content is None:
            file.unlink()
        elif isinstance(content, str):
            savemat(file, {"box_coord": np.array([1, 2, 3] if content == "three" else [1, 2, 3, np.nan])})
        else:
            file.write_bytes(content)
        said = "is missing" if content is None else "needs a MATLAB file with four numbers box_coord"
        check(file, None, said, 4, *open_splits(tmp_path))


# ---- what all have in common


@pytest.mark.parametrize("build", ["tiny", "voc", "coco", "yolo", "caltech"])
def test_no_picture_is_opened_and_ids_are_unique(tmp_path: Path, build: str) -> None:
    getattr(trees, build)(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            path.write_bytes(b"garbage")
    for found in open_splits(tmp_path):
        assert len({sample.id for sample in found}) == len(found) > 0
        assert all(("has no photo" in line) for line in told(found))  # the potted plant
        assert any("not a picture" in line for line in told(found, pictures=True))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        ("tiny", "wnids.txt"),
        ("voc", "VOCdevkit/VOC2007/Annotations/000002.xml"),
        ("coco", "annotations/instances_val2017.json"),
        ("yolo", "data.yaml"),
        ("yolo", "labels/train/a.txt"),
        ("caltech", "Annotations/ant/annotation_0001.mat"),
    ],
)
def test_lists_behind_links(tmp_path: Path, build: str, name: str) -> None:
    getattr(trees, build)(tmp_path / "secret")
    root = getattr(trees, build)(tmp_path / "data")
    (root / name).unlink()
    (root / name).symlink_to(os.path.relpath(tmp_path / "secret" / name, (root / name).parent))
    found = open_splits(root)[-1] if build != "voc" else open_splits(root, split="val")[0]
    with pytest.raises(DatasetError) as caught:
        len(found)
    assert str(caught.value).startswith(f"{root / name}: ") and "is a link out of" in str(caught.value)
    assert str(caught.value) in told(found)


@pytest.mark.parametrize("build", ["tiny", "voc", "coco", "yolo"])
def test_any_damage_ends_in_a_line(tmp_path: Path, build: str) -> None:
    root = getattr(trees, build)(tmp_path)
    lists = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".xml", ".json", ".yaml"))
    before = {path: path.read_bytes() for path in lists}
    rng = np.random.default_rng(0)
    for _ in range(60):
        path = lists[rng.integers(len(lists))]
        text = bytearray(before[path])
        at, to = sorted(rng.integers(0, len(text) + 1, 2))
        text[at : to if rng.integers(2) else at] = bytes(rng.integers(32, 127, rng.integers(4)).tolist())
        path.write_bytes(text)
        for found in open_splits(root):
            lines = told(found)
            assert all(line.isprintable() and line.startswith(str(root)) for line in lines)
            try:
                assert len(list(found)) == len(found)
            except DatasetError as error:
                assert str(error) in lines
        path.write_bytes(before[path])


def test_real_tiny_imagenet(shared: Path) -> None:
    train, val = open_splits(shared / "data" / "tiny-imagenet-25")
    assert (len(train), len(val), train.classes) == (2500, 1250, val.classes)
    assert train.classes is not None and len(train.classes) == 25
    written = (shared / "data" / "tiny-imagenet-25" / "val" / "val_annotations.txt").read_text().split()
    for sample, *row in zip(val, *(written[at::6] for at in range(6)), strict=True):
        assert [sample.id, val.classes[sample.label], *sample.boxes[0].astype(int).astype(str)] == row  # type: ignore[index]
    assert list(train.problems()) == [] == list(val.problems(pictures=True))


def test_real_caltech(shared: Path) -> None:
    found = trt_cam.load_dataset(shared / "data" / "caltech-101")
    assert (found.kind, len(found), found.num_classes) == ("caltech-101", 1515, 101)
    assert np.bincount(found.labels()).tolist() == [15] * 101 and list(found.problems()) == []
