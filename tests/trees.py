"""Small data sets in the layouts that the archives unpack to, as the tests of the readers build them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

W, H = 40, 30  # of every photo, unless a test says otherwise


def photo(path: Path, size: tuple[int, int] = (W, H)) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode("utf-8", "surrogateescape"))
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="PNG" if path.suffix == ".png" else "JPEG")
    return path


def write(path: Path, lines: Iterable[str], end: str = "\n") -> Path:
    """A list, one entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode("utf-8", "surrogateescape"))
    return path


CUB_NAMES = {
    1: "001.Black_footed_Albatross/a.jpg",
    2: "001.Black_footed_Albatross/b.jpg",
    3: "002.Laysan_Albatross/c.jpg",
    4: "002.Laysan_Albatross/d e.jpg",
}
CUB_BOXES = {1: (6.0, 2.0, 32.0, 20.5), 2: (0.0, 0.0, 39.0, 29.0), 3: (1.0, 1.0, 5.0, 5.0), 4: (3.0, 4.0, 10.0, 20.0)}


def cub(root: Path) -> Path:
    """The original tree: photos 1 and 3 are for training."""
    write(root / "images.txt", (f"{n} {name}" for n, name in CUB_NAMES.items()))
    write(root / "classes.txt", ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross"])
    write(root / "image_class_labels.txt", ["1 1", "2 1", "3 2", "4 2"])
    write(root / "train_test_split.txt", ["1 1", "2 0", "3 1", "4 0"])
    write(root / "bounding_boxes.txt", (f"{n} " + " ".join(map(str, box)) for n, box in CUB_BOXES.items()))
    for name in CUB_NAMES.values():
        photo(root / "images" / name)
    return root


WSOL = {  # id -> label, (W, H), boxes
    "001.A/a_1.jpg": (0, (W, H), [(6, 2, 38, 29)]),
    "001.A/b,c.jpg": (0, (W, H), [(0, 0, 39, 29), (5, 6, 7, 8)]),
    "002.B/größe.jpg": (1, (400, 300), [(100, 100, 399, 299)]),  # the stored photo is a smaller copy
}


def wsol(root: Path, name: str = "", split: str = "test", below: str = "") -> Path:
    """wsolevaluation's four lists, and their photos below a folder."""
    lists = root / "metadata" / name / split
    write(lists / "image_ids.txt", WSOL)
    write(lists / "class_labels.txt", (f"{id},{label}" for id, (label, _, _) in WSOL.items()))
    write(lists / "image_sizes.txt", (f"{id},{w},{h}" for id, (_, (w, h), _) in WSOL.items()))
    boxes = [f"{id}," + ",".join(map(str, box)) for id, (_, _, found) in WSOL.items() for box in found]
    write(lists / "localization.txt", sorted(boxes, key=lambda line: line[::-1]))  # one photo's need not be together
    for id in WSOL:
        photo(root / below / id)
    return root


MASKS = {  # id -> label, masks, ignored region
    "val/01226z/a.jpg": (0, ["val/01226z/a_m01226z_7dab.png"], "val/01226z/a_ignore.png"),
    "val/01226z/b.jpg": (0, ["val/01226z/b_m01226z_1.png", "val/01226z/b_m01226z_2.png"], "val/01226z/b_ignore.png"),
    "val/0138tl/c.jpg": (1, ["val/0138tl/c_m0138tl_1.png"], ""),
}


def openimages(root: Path, masks_below: str = "dataset/OpenImages") -> Path:
    """OpenImages30k: masks and ignored regions."""
    lists = root / "metadata" / "OpenImages" / "val"
    write(lists / "image_ids.txt", MASKS)
    write(lists / "class_labels.txt", (f"{id},{label}" for id, (label, _, _) in MASKS.items()))
    lines = [
        f"{id},{mask},{'' if at else ignore}"
        for id, (_, masks, ignore) in MASKS.items()
        for at, mask in enumerate(masks)
    ]
    write(lists / "localization.txt", lines)
    for id, (_, masks, ignore) in MASKS.items():
        photo(root / "dataset" / "OpenImages" / id)
        for mask in [*masks, *filter(None, [ignore])]:
            photo(root / masks_below / mask)
    return root


WNIDS = ("n01440764", "n02102040", "n03000684")


def xml(path: Path, name: str, boxes: Iterable[tuple[float, ...]], size: tuple[int, int] = (W, H)) -> Path:
    """One photo's boxes as ILSVRC and VOC write them: an object begins in line 4 and every seventh after it."""
    lines = ["<annotation>", f"<filename>{path.stem}</filename>"]
    lines += [f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"]
    for box in boxes:
        corners = [f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)]
        lines += ["<object>", f"<name>{name}</name>", "<difficult>0</difficult>", "<bndbox>"]
        lines += [*("".join(corners[:2]), "".join(corners[2:]) + "</bndbox>"), "</object>"]
    return write(path, [*lines, "</annotation>"])


VAL = {  # stem -> WordNet id, boxes
    "ILSVRC2012_val_00000001": ("n02102040", [(6, 2, 38, 29)]),
    "ILSVRC2012_val_00000002": ("n01440764", [(0, 0, 39, 29), (5, 6, 7, 8)]),
    "ILSVRC2012_val_00000003": ("n03000684", [(1, 1, 2, 2)]),
}


def ilsvrc(root: Path, photos: str = "", notes: str = "Annotations/CLS-LOC/val", flat: bool = True) -> Path:
    """Train folders, and val flat or in folders with the devkit's XML."""
    for wnid in WNIDS:
        for index in (10, 2):
            photo(root / photos / "train" / wnid / f"{wnid}_{index}.JPEG")
    for stem, (wnid, boxes) in VAL.items():
        photo(root / photos / "val" / ("" if flat else wnid) / f"{stem}.JPEG")
        xml(root / notes / f"{stem}.xml", wnid, boxes)
    return root


def ts_cam(root: Path, val: str = "val_folder_new.txt") -> Path:
    """TS-CAM's lists; the labels count the sorted WordNet ids."""
    lines = []
    for stem, (wnid, boxes) in VAL.items():
        photo(root / "val" / wnid / f"{stem}.JPEG")
        numbers = " ".join(str(value) for box in boxes for value in box)
        lines.append(f"{wnid}/{stem}.JPEG {WNIDS.index(wnid)} {numbers}")
    write(root / "ILSVRC2012_list" / val, lines)
    trained = [f"{wnid}/{wnid}_1.JPEG" for wnid in WNIDS]
    write(root / "ILSVRC2012_list" / "train.txt", (f"{id} {label}" for label, id in enumerate(trained)))
    for id in trained:
        photo(root / "train" / id)
    return root


def folders(root: Path) -> Path:
    """A folder for each class, one photo deeper."""
    for name in ("cat/b.jpg", "cat/a.png", "cat/more/c.jpg", "dog/a.jpg"):
        photo(root / name)
    write(root / "dog" / "readme.txt", ["no picture"])
    photo(root / "cat" / ".hidden.jpg")
    return root


TINY_VAL = {  # photo -> WordNet id, box
    "val_0.JPEG": ("n02102040", (0, 0, 63, 63)),
    "val_1.JPEG": ("n01440764", (5, 6, 7, 8)),
    "val_10.JPEG": ("n03000684", (1, 2, 1, 2)),  # one pixel
}


def tiny(root: Path) -> Path:
    """Tiny-ImageNet-200: tabs between the fields, 64x64 photos, class ids in no order."""
    write(root / "wnids.txt", reversed(WNIDS))
    write(root / "words.txt", (f"{wnid}\tsome thing" for wnid in WNIDS))
    for wnid in WNIDS:
        lines = [f"{wnid}_{index}.JPEG\t{index}\t1\t50\t60" for index in (0, 10)]
        write(root / "train" / wnid / f"{wnid}_boxes.txt", lines)
        for index in (0, 10):
            photo(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", (64, 64))
    lines = ["\t".join(map(str, (name, wnid, *box))) for name, (wnid, box) in TINY_VAL.items()]
    write(root / "val" / "val_annotations.txt", lines)
    for name in (*TINY_VAL, "test_0.JPEG"):
        photo(root / name.partition("_")[0] / "images" / name, (64, 64))
    return root


def voc(root: Path, inner: str = "VOCdevkit/VOC2007", classes: bool = True) -> Path:
    """PASCAL VOC: photo 1 shows a dog, photo 2 two cats and a dog, photo 3 nothing; 1 is for training, the rest val."""
    base = root / inner
    objects = {1: [("dog", (6, 2, 38, 29))], 2: [("cat", (1, 1, 40, 30)), ("dog", (2, 2, 9, 9)), ("cat", (3, 4, 5, 6))]}
    for number in (1, 2, 3):
        stem = f"00000{number}"
        found = objects.get(number, [])
        xml(base / "Annotations" / f"{stem}.xml", "", [box for _, box in found])
        text = (base / "Annotations" / f"{stem}.xml").read_text()
        for name, _ in found:
            text = text.replace("<name></name>", f"<name>{name}</name>", 1)
        (base / "Annotations" / f"{stem}.xml").write_text(
            text.replace(f">{stem}</filename>", f">{stem}.jpg</filename>")
        )
        photo(base / "JPEGImages" / f"{stem}.jpg")
    write(base / "ImageSets" / "Main" / "train.txt", ["000001"])
    write(base / "ImageSets" / "Main" / "val.txt", ["000002", "000003"])
    for name in ("cat", "dog", "pottedplant") if classes else ():
        write(base / "ImageSets" / "Main" / f"{name}_train.txt", ["000001 -1"])
    return root


COCO = {
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": W, "height": H},
        {"id": 2, "file_name": "sub/b.jpg", "width": W, "height": H},
        {"id": 9, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.5, 2, 10, 20.25], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, W, H]},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [3, 3, 1, 1], "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 18, "bbox": [5, 5, 6, 6], "iscrowd": 0},
        {"id": 5, "image_id": 9, "category_id": 18, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": {}},
    ],
}


def coco(root: Path, file: str = "annotations/instances_val2017.json", photos: str = "val2017") -> Path:
    """COCO: a photo of two classes, one of one, and one of a crowd alone."""
    write(root / file, [json.dumps(COCO)])
    for image in COCO["images"]:
        photo(root / photos / str(image["file_name"]))
    return root


def yolo(root: Path, images: str = "images/train", labels: str = "labels/train") -> Path:
    """YOLO: a photo of two classes, one without objects, one without a label file."""
    write(root / "data.yaml", ["train: ../elsewhere", "nc: 2", "names: [cat, dog]"])
    write(root / labels / "a.txt", ["1 0.5 0.5 1 1", "0 0.25 0.5 0.5 0.25", "1 0.125 0.125 0.25 0.25"])
    write(root / labels / "deep" / "b.txt", [])
    for name in ("a.jpg", "deep/b.png", "c.jpg"):
        photo(root / images / name)
    return root


def caltech(root: Path, boxes: bool = True) -> Path:
    """Caltech-101 with the MATLAB files of its annotations."""
    for name, folder in {"Faces": "Faces_2", "ant": "ant", "BACKGROUND_Google": ""}.items():
        for index in (1, 2):
            photo(root / "101_ObjectCategories" / name / f"image_000{index}.jpg")
            if boxes and folder:
                file = root / "Annotations" / folder / f"annotation_000{index}.mat"
                file.parent.mkdir(parents=True, exist_ok=True)
                box = np.array([[2, 20, 3 + index, 30]], dtype=np.uint16)  # top, bottom, left, right
                savemat(file, {"box_coord": box, "obj_contour": np.zeros((2, 9))})
    return root
