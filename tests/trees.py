"""Small data sets in the layouts that the archives unpack to, as the tests of the readers build them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

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
