"""Readers on small trees in each official layout: every field equals what was written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from trees import VAL, WNIDS, WSOL, H, W

import trt_cam
from trt_cam.data.catalog import KINDS, open_splits
from trt_cam.data.problems import Report
from trt_cam.data.samples import DataSet, Sample
from trt_cam.data.table import Table
from trt_cam.data.walk import scan
from trt_cam.errors import DatasetError, InputError


def fields(found: DataSet) -> list[tuple]:
    """Every field of every sample, as plain values."""
    return [(s.id, s.path, s.label, [tuple(box) for box in s.boxes.tolist()], s.size, s.masks, s.ignore) for s in found]


def clean(found: DataSet) -> bool:
    return list(found.problems(pictures=True)) == []


class TestCub:
    @pytest.mark.parametrize("inner", ["", "CUB_200_2011"])  # the archive has one folder at its top
    @pytest.mark.parametrize(("split", "numbers"), [("train", [1, 3]), ("test", [2, 4])])
    def test_every_field(self, tmp_path: Path, inner: str, split: str, numbers: list[int]) -> None:
        trees.cub(tmp_path / inner)
        found = trt_cam.load_dataset(tmp_path, split=split)
        wanted = []
        for number in numbers:
            name, (x, y, w, h) = trees.CUB_NAMES[number], trees.CUB_BOXES[number]
            path = tmp_path / inner / "images" / name
            wanted.append((name, path, (number - 1) // 2, [(x, y, x + w, y + h)], None, (), None))
        assert fields(found) == wanted
        assert (found.kind, found.classes, found.inclusive, found.num_classes, found.splits()) == (
            "cub",
            ("001.Black_footed_Albatross", "002.Laysan_Albatross"),
            True,
            2,
            ("train", "test"),
        )
        assert clean(found)

    def test_photos_elsewhere(self, tmp_path: Path) -> None:
        trees.cub(tmp_path / "lists")
        (tmp_path / "lists" / "images").rename(tmp_path / "photos")
        found = trt_cam.load_dataset(tmp_path / "lists", split="test", photos_root=tmp_path / "photos")
        assert found[0].path == tmp_path / "photos" / trees.CUB_NAMES[2]
        assert clean(found)


def wsol_fields(photos: Path) -> list[tuple]:
    return [
        (id, photos / id, label, sorted(map(tuple, boxes)), (size[1], size[0]), (), None)
        for id, (label, size, boxes) in WSOL.items()
    ]


def with_sorted_boxes(rows: list[tuple]) -> list[tuple]:
    return [(*row[:3], sorted(row[3]), *row[4:]) for row in rows]


class TestWsolLists:
    def test_every_field(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.wsol(tmp_path))
        assert with_sorted_boxes(fields(found)) == wsol_fields(tmp_path)
        assert (found.kind, found.name, found.split, found.inclusive) == ("wsol", tmp_path.name, "test", True)
        assert (found.classes, found.num_classes, found.labels().tolist()) == (None, 2, [0, 0, 1])
        assert clean(found)

    def test_boxes_of_a_photo_keep_the_order_of_the_list(self, tmp_path: Path) -> None:
        trees.wsol(tmp_path)
        boxes = tmp_path / "metadata" / "test" / "localization.txt"
        trees.write(boxes, ["001.A/b,c.jpg,5,6,7,8", "001.A/a_1.jpg,1,2,3,4", "001.A/b,c.jpg,0,0,9,9"])
        found = trt_cam.load_dataset(tmp_path)
        assert found[1].boxes.tolist() == [[5, 6, 7, 8], [0, 0, 9, 9]]
        assert found[2].boxes.shape == (0, 4)

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_a_checkout(self, tmp_path: Path, split: str) -> None:
        trees.wsol(tmp_path, "CUB", split, "dataset/CUB")
        found = trt_cam.load_dataset(tmp_path)
        assert with_sorted_boxes(fields(found)) == wsol_fields(tmp_path / "dataset" / "CUB")
        assert (found.name, found.split, found.num_classes) == ("CUB", split, 200)
        assert [str(problem).split(": ", 1)[1] for problem in found.problems()] == [
            "has no photo of 198 of 200 classes: 2, 3, 4, 5, 6, ..."
        ]

    def test_several_data_sets(self, tmp_path: Path) -> None:
        trees.wsol(tmp_path, "CUB", "train", "dataset/CUB")
        trees.wsol(tmp_path, "ILSVRC", "val", "dataset/ILSVRC")
        trees.wsol(tmp_path, "ILSVRC", "test", "dataset/ILSVRC")
        with pytest.raises(InputError, match="lists of CUB, ILSVRC; name one with name="):
            trt_cam.load_dataset(tmp_path)
        with pytest.raises(InputError, match="no lists of 'COCO'; it has CUB, ILSVRC"):
            trt_cam.load_dataset(tmp_path, name="COCO")
        with pytest.raises(InputError, match="has the splits val, test; name one with split="):
            trt_cam.load_dataset(tmp_path, name="ILSVRC")
        assert trt_cam.load_dataset(tmp_path, name="CUB").split == "train"
        assert [one.split for one in open_splits(tmp_path, name="ILSVRC")] == ["val", "test"]

    def test_lists_and_photos_apart(self, tmp_path: Path) -> None:
        trees.wsol(tmp_path / "code", "CUB", "test", "../photos")
        found = trt_cam.load_dataset(tmp_path / "code" / "metadata" / "CUB", photos_root=tmp_path / "photos")
        assert with_sorted_boxes(fields(found)) == wsol_fields(tmp_path / "photos")
        assert found.name == "CUB"

    def test_training_photos_have_labels_only(self, tmp_path: Path) -> None:
        trees.wsol(tmp_path, split="train")
        for name in ("image_sizes.txt", "localization.txt"):
            (tmp_path / "metadata" / "train" / name).unlink()
        found = trt_cam.load_dataset(tmp_path)
        assert [(s.label, s.boxes.shape, s.size) for s in found] == [(label, (0, 4), None) for label in (0, 0, 1)]
        assert clean(found)

    @pytest.mark.parametrize("apart", [False, True])
    def test_masks(self, tmp_path: Path, apart: bool) -> None:
        trees.openimages(tmp_path, *(["masks"] if apart else []))
        options = {"masks_root": tmp_path / "masks"} if apart else {}
        found = trt_cam.load_dataset(tmp_path, **options)
        photos = tmp_path / "dataset" / "OpenImages"
        masks = tmp_path / "masks" if apart else photos
        assert fields(found) == [
            (id, photos / id, label, [], None, tuple(masks / one for one in names), masks / ignore if ignore else None)
            for id, (label, names, ignore) in trees.MASKS.items()
        ]
        assert found.num_classes == 100
        assert found.counts() == {"samples": 3, "classes": 2, "boxes": 0, "masks": 4, "without": 0}
        (only,) = found.problems(pictures=True)
        assert "98 of 100 classes" in only.message


class TestIlsvrc:
    @pytest.mark.parametrize("flat", [True, False])
    @pytest.mark.parametrize(
        ("photos", "notes"),
        [
            ("", "Annotations/CLS-LOC/val"),
            ("", "bbox/val"),
            ("Data/CLS-LOC", "Annotations/CLS-LOC/val"),
            ("ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC/val"),
        ],
    )
    def test_val(self, tmp_path: Path, photos: str, notes: str, flat: bool) -> None:
        found = trt_cam.load_dataset(trees.ilsvrc(tmp_path, photos, notes, flat), split="val")
        wanted = []
        for stem, (wnid, boxes) in VAL.items():
            id = f"val/{stem}.JPEG" if flat else f"val/{wnid}/{stem}.JPEG"
            wanted.append((id, tmp_path / photos / id, WNIDS.index(wnid), boxes, (H, W), (), None))
        assert fields(found) == wanted
        assert (found.kind, found.classes, found.inclusive) == ("ilsvrc", WNIDS, True)
        assert clean(found)

    def test_train(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.ilsvrc(tmp_path), split="train")
        ids = [f"train/{wnid}/{wnid}_{index}.JPEG" for wnid in WNIDS for index in (10, 2)]
        assert fields(found) == [(id, tmp_path / id, at // 2, [], None, (), None) for at, id in enumerate(ids)]
        assert found.splits() == ("train", "val")
        assert clean(found)

    def test_kaggle_names_all_classes(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, "ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC/val")
        names = [*(f"{wnid} some thing" for wnid in reversed(WNIDS)), "n00000001 an x, a y"]
        trees.write(tmp_path / "LOC_synset_mapping.txt", names)
        found = trt_cam.load_dataset(tmp_path, split="val")
        assert found.classes == ("n00000001", *WNIDS)
        assert found.labels().tolist() == [WNIDS.index(wnid) + 1 for wnid, _ in VAL.values()]
        (problem,) = found.problems()
        assert str(problem) == f"{tmp_path / 'LOC_synset_mapping.txt'}:4: class n00000001 has no photo"

    def test_val_alone_counts_the_classes_in_the_xml(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, notes="bbox/val")
        (tmp_path / "bbox" / "val" / "ILSVRC2012_val_00000001.xml").unlink()
        (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
        (tmp_path / "train").rename(tmp_path / "elsewhere")
        found = trt_cam.load_dataset(tmp_path, kind="ilsvrc")
        assert (found.split, found.classes) == ("val", ("n01440764", "n03000684"))
        assert found.labels().tolist() == [0, 1]

    def test_annotations_elsewhere(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path / "photos", notes="../xml")
        found = trt_cam.load_dataset(tmp_path / "photos", kind="ilsvrc", split="val", annotations_root=tmp_path / "xml")
        assert [len(s.boxes) for s in found] == [1, 2, 1]

    def test_folders_without_boxes(self, tmp_path: Path) -> None:
        trees.ilsvrc(tmp_path, notes="unused", flat=False)
        found = trt_cam.load_dataset(tmp_path, split="val")
        assert [(s.label, len(s.boxes)) for s in found] == [(0, 0), (1, 0), (2, 0)]
        assert clean(found)


class TestTsCam:
    @pytest.mark.parametrize("name", ["val_folder_new.txt", "val_folder.txt"])
    def test_val(self, tmp_path: Path, name: str) -> None:
        found = trt_cam.load_dataset(trees.ts_cam(tmp_path, name), split="val")
        assert fields(found) == [
            (f"{wnid}/{stem}.JPEG", tmp_path / "val" / wnid / f"{stem}.JPEG", WNIDS.index(wnid), boxes, None, (), None)
            for stem, (wnid, boxes) in VAL.items()
        ]
        assert (found.kind, found.classes, found.inclusive) == ("ts-cam", WNIDS, True)
        assert clean(found)

    def test_all_boxes_are_preferred(self, tmp_path: Path) -> None:
        trees.ts_cam(tmp_path)
        trees.write(tmp_path / "ILSVRC2012_list" / "val_folder.txt", ["n01440764/x.JPEG 0 1.0 2.0 3.0 4.0"])
        assert len(trt_cam.load_dataset(tmp_path, split="val")) == 3

    def test_train(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.ts_cam(tmp_path), split="train")
        assert [(s.id, s.path.parent.parent, s.label, len(s.boxes)) for s in found] == [
            (f"{wnid}/{wnid}_1.JPEG", tmp_path / "train", label, 0) for label, wnid in enumerate(WNIDS)
        ]
        assert clean(found)


class TestFolders:
    IDS = ("cat/a.png", "cat/b.jpg", "cat/more/c.jpg", "dog/a.jpg")

    def test_every_field(self, tmp_path: Path) -> None:
        found = trt_cam.load_dataset(trees.folders(tmp_path))
        labels = [0, 0, 0, 1]
        assert fields(found) == [
            (id, tmp_path / id, label, [], None, (), None) for id, label in zip(self.IDS, labels, strict=True)
        ]
        assert (found.kind, found.split, found.classes, found.inclusive) == ("folders", "all", ("cat", "dog"), False)
        assert clean(found)

    @pytest.mark.parametrize("heading", [[], ["path,x0,y0,x1,y1"], ["Path, X0, Y0, X1, Y1"]])
    def test_boxes(self, tmp_path: Path, heading: list[str]) -> None:
        trees.folders(tmp_path)
        rows = ["dog/a.jpg,1,2,3.5,4", "cat/b.jpg,0,0,40,30", '"cat/a.png",1,1,2,2', "dog/a.jpg,5,5,6,6"]
        trees.write(tmp_path / "boxes.csv", heading + rows + ["cat/more/c.jpg,0,0,1,1"])
        found = trt_cam.load_dataset(tmp_path)
        assert [s.boxes.tolist() for s in found] == [
            [[1, 1, 2, 2]],
            [[0, 0, 40, 30]],
            [[0, 0, 1, 1]],
            [[1, 2, 3.5, 4], [5, 5, 6, 6]],
        ]
        assert clean(found)

    def test_boxes_elsewhere_and_names_with_commas(self, tmp_path: Path) -> None:
        trees.photo(tmp_path / "tree" / "cat" / "a, b.jpg")
        trees.write(tmp_path / "mine.csv", ['"cat/a, b.jpg",1,2,3,4'])
        found = trt_cam.load_dataset(tmp_path / "tree", boxes=tmp_path / "mine.csv")
        assert found[0].boxes.tolist() == [[1, 2, 3, 4]]

    def test_boxes_that_are_given_may_be_a_link(self, tmp_path: Path) -> None:
        trees.photo(tmp_path / "tree" / "cat" / "a.jpg")
        trees.write(tmp_path / "stored" / "v2.csv", ["cat/a.jpg,1,2,3,4"])
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists" / "mine.csv").symlink_to(tmp_path / "stored" / "v2.csv")
        found = trt_cam.load_dataset(tmp_path / "tree", boxes=tmp_path / "lists" / "mine.csv")
        assert found[0].boxes.tolist() == [[1, 2, 3, 4]]

    def test_boxes_of_other_splits_are_not_looked_for_one_by_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trees.folders(tmp_path / "train")
        trees.folders(tmp_path / "val")
        scans: list[int] = []
        for others in (1, 50):
            trees.write(tmp_path / "boxes.csv", ["val/dog/a.jpg,5,6,7,8", *["train/dog/a.jpg,1,2,3,4"] * others])
            count = [0]

            def counted(*words: Any, count: list[int] = count) -> Any:
                count[0] += 1
                return scan(*words)

            monkeypatch.setattr("trt_cam.data.folders.scan", counted)
            assert trt_cam.load_dataset(tmp_path, split="val")[3].boxes.tolist() == [[5, 6, 7, 8]]
            scans.append(count[0])
        assert scans[0] == scans[1]

    def test_splits(self, tmp_path: Path) -> None:
        trees.folders(tmp_path / "train")
        trees.folders(tmp_path / "val")
        trees.write(tmp_path / "boxes.csv", ["train/dog/a.jpg,1,2,3,4", "val/dog/a.jpg,5,6,7,8"])
        found = trt_cam.load_dataset(tmp_path, split="val")
        assert [s.id for s in found] == [f"val/{id}" for id in self.IDS]
        assert found[3].boxes.tolist() == [[5, 6, 7, 8]]
        assert found.splits() == ("train", "val")

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        trees.photo(tmp_path / "train" / "a.jpg")
        trees.photo(tmp_path / "plane" / "b.jpg")
        assert trt_cam.load_dataset(tmp_path).classes == ("plane", "train")

    def test_photos_alone(self, tmp_path: Path) -> None:
        for name in ("b.jpg", "a.png"):
            trees.photo(tmp_path / name)
        assert trt_cam.load_dataset(tmp_path).kind == "photos"
        trees.photo(tmp_path / "deeper" / "c.jpg")
        found = trt_cam.load_dataset(tmp_path, kind="photos")
        assert [(s.id, s.label, s.size) for s in found] == [
            ("a.png", None, None),
            ("b.jpg", None, None),
            ("deeper/c.jpg", None, None),
        ]
        assert (found.kind, found.classes, found.num_classes, found.labels().tolist()) == ("photos", None, 0, [-1] * 3)
        assert clean(found)


# ---- what all have in common


@pytest.fixture(params=["cub", "wsol", "ilsvrc", "ts_cam", "folders"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    build: Callable[[Path], Path] = getattr(trees, request.param)
    return build(tmp_path)


def test_a_sequence(tree: Path) -> None:
    for found in open_splits(tree):
        assert found.labels().dtype == np.int64 and found.labels().tolist() == [s.label for s in found]
        assert list(found.ids) == [s.id for s in found] and len(set(found.ids)) == len(found)
        assert [s.id for s in found[-2:]] == [found[-2].id, found[-1].id]
        assert all(s.boxes.dtype == np.float64 and s.boxes.shape[1:] == (4,) for s in found)
        with pytest.raises(IndexError):
            found[len(found)]
        assert fields(pickle.loads(pickle.dumps(found))) == fields(found)


def test_boxes_are_the_callers_own(tmp_path: Path) -> None:
    found = trt_cam.load_dataset(trees.wsol(tmp_path))
    found[0].boxes[:] = -1
    assert found[0].boxes.tolist() == [[6, 2, 38, 29]]


def test_no_picture_is_opened(tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            path.write_bytes(b"garbage")
    for found in open_splits(tree):
        assert len(list(found)) == len(found) > 0
        assert list(found.problems()) == []
        told = [problem.message for problem in found.problems(pictures=True)]
        assert len(told) == len(found) and all("not a picture" in message for message in told)


def test_lists_are_read_once_and_not_before_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.cub(tmp_path)
    (found,) = open_splits(tmp_path, split="test")
    opened: list[str] = []
    really = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self.name), really(self, *a, **k))[1])
    assert opened == []
    assert len(found) == 2 and found[0].label == 0 and found.labels().tolist() == [0, 1] and found.classes
    assert len(opened) == len(set(opened)) == 5


@pytest.mark.parametrize("dress", ["crlf", "bom", "no line end", "blank lines", "blanks"])
def test_how_a_list_is_written_does_not_matter(tree: Path, dress: str) -> None:
    before = [fields(found) for found in open_splits(tree)]
    lists = [path for path in tree.rglob("*.txt") if path.name != "readme.txt"]
    for path in lists:
        text = path.read_bytes()
        if dress == "crlf":
            text = text.replace(b"\n", b"\r\n")
        if dress == "bom":
            text = b"\xef\xbb\xbf" + text
        if dress == "no line end":  # TS-CAM's reader cuts the last digit then
            text = text[:-1]
        if dress == "blank lines":
            text = b"\n" + text.replace(b"\n", b"\n \n")
        if dress == "blanks":
            text = text.replace(b"\n", b" \t\n")
        path.write_bytes(text)
    assert [fields(found) for found in open_splits(tree)] == before


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    odd = "001.A/caf\udce9.jpg"
    trees.photo(tmp_path / odd)
    trees.write(tmp_path / "metadata" / "test" / "image_ids.txt", [odd])
    trees.write(tmp_path / "metadata" / "test" / "class_labels.txt", [f"{odd},0"])
    found = trt_cam.load_dataset(tmp_path)
    assert found[0].path.is_file()
    found[0].path.unlink()
    (problem,) = found.problems()
    assert "caf\\udce9.jpg: is missing" in str(problem)


# ---- the catalogue


def test_kinds_are_found_by_what_lies_there(tmp_path: Path) -> None:
    for build in ("cub", "wsol", "ilsvrc", "ts_cam", "folders"):
        getattr(trees, build)(tmp_path / build)
        (tmp_path / build / "docs").mkdir()
    found = {build.name: {one.kind for one in open_splits(build)} for build in tmp_path.iterdir()}
    assert found == {
        "cub": {"cub"},
        "wsol": {"wsol"},
        "ilsvrc": {"ilsvrc"},
        "ts_cam": {"ts-cam"},
        "folders": {"folders"},
    }


def test_a_kind_by_name(tmp_path: Path) -> None:
    trees.ts_cam(tmp_path)
    assert trt_cam.load_dataset(tmp_path, kind="ilsvrc", split="train").classes == WNIDS
    assert trt_cam.load_dataset(tmp_path / "train", kind="photos").classes is None


def test_a_folder_with_nothing_known_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="which is empty; check the path"):
        trt_cam.load_dataset(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError) as caught:
        trt_cam.load_dataset(tmp_path)
    assert all(kind in str(caught.value) for kind in KINDS) and "\n" not in str(caught.value)
    assert "metadata/<NAME>/<split>/image_ids.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["gone"], {}, "'.*gone' is no folder"),
        (["a" * 300], {}, "'.*aaa' is no folder"),  # longer than the name of a file can be
        (["a\0b"], {}, "is no folder"),
        (["", "cubs"], {}, "unknown kind of data set 'cubs'; known: auto, wsol, cub"),
        (["", "auto", "tset"], {}, "has no split 'tset'; it has train, test"),
        (["", "cub"], {}, "has the splits train, test; name one"),
        (["", "cub", "test"], {"photo_root": "x"}, "no option 'photo_root'; they have photos_root"),
        (["", "cub", "test"], {"photos_root": "x"}, "'x' is no folder"),
        (["", "cub", "test"], {"photos_root": "~nobody-of-that-name/x"}, "'~nobody-of-that-name/x' is no folder"),
        (["", "yolo"], {"photos_root": "x"}, "kind yolo have no option 'photos_root'; they have none"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], options: dict[str, str], said: str) -> None:
    trees.cub(tmp_path)
    with pytest.raises(InputError, match=said):
        trt_cam.load_dataset(tmp_path / arguments[0], *arguments[1:], **options)


def test_another_kind_than_the_named(tmp_path: Path) -> None:
    trees.folders(tmp_path)
    with pytest.raises(DatasetError, match="is no data set of kind cub: needs images.txt"):
        trt_cam.load_dataset(tmp_path, kind="cub")


class Pairs(DataSet):
    """A kind of somebody's own: ``pairs.txt`` of names and labels."""

    kind = "pairs"
    needs = "pairs.txt"

    @classmethod
    def find(cls, root: Path) -> tuple[str, ...]:
        return ("all",) if (root / "pairs.txt").is_file() else ()

    def read(self, table: Table, report: Report) -> None:
        for line, text in enumerate((self.root / "pairs.txt").read_text().splitlines(), start=1):
            name, label = text.split()
            row = table.add(name, (self.root / "pairs.txt", line), int(label))
            table.add_box(row, (0, 0, 1, 1), (self.root / "pairs.txt", line))


def test_a_kind_of_ones_own(tmp_path: Path) -> None:
    trees.write(tmp_path / "pairs.txt", ["a.jpg 1", "../b.jpg 0"])
    with pytest.raises(DatasetError, match=r"pairs.txt:2: needs a name below the data set's folder, but '../b.jpg'"):
        trt_cam.load_dataset(tmp_path, kind=Pairs)
    trees.write(tmp_path / "pairs.txt", ["a.jpg 1"])
    (sample,) = trt_cam.load_dataset(tmp_path, kind=Pairs)
    assert isinstance(sample, Sample) and (sample.label, sample.boxes.tolist()) == (1, [[0, 0, 1, 1]])
