"""What stands under the names that pages use: small photos, small data sets, small networks, a hub in a folder."""

from __future__ import annotations

import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import trees
from families import TINY, shaken
from PIL import Image
from torch import Tensor, nn

import trt_cam
from trt_cam import TRTLocalizer
from trt_cam.explainers import list_explainers, registry
from trt_cam.models import weights
from trt_cam.models.tscam import TSCAMNet

COFFEE = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"
WORDS = ("cup", "espresso", "tabby")  # classes of the embedded model, and of the folders of photos
create_model = timm.create_model


def furnish(folder: Path, text: str) -> None:
    """What a page names, made in a folder."""
    shutil.copy(COFFEE, folder / "photo.jpg")
    for name, make in STAND_INS.items():
        if re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", text):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            make(folder / name)


def crop(path: Path, number: int, size: tuple[int, int] = (64, 48)) -> Path:
    """A part of the bundled photo, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(COFFEE) as photo:
        left, top = 13 * number % 120, 7 * number % 60
        photo.crop((left, top, left + 440, top + 330)).resize(size).save(path)
    return path


def classes(root: Path) -> Path:
    """A folder for each class, told apart by colour; some boxes."""
    rng = np.random.default_rng(0)
    for colour, name in enumerate(("bird", "cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 120, (40, 48, 3))
            pixels[10:30, 12:36, colour] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.jpg")
    trees.write(root.parent / "elsewhere.csv", ["dog/0.jpg,1,2,30,20"])
    return root


BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def cub(root: Path) -> Path:
    """CUB with five photos of two classes to train on, and two to test."""
    names = {number: f"{BIRDS[number % 2]}/{number}.jpg" for number in range(1, 13)}
    trees.write(root / "images.txt", (f"{n} {name}" for n, name in names.items()))
    trees.write(root / "classes.txt", (f"{n} {name}" for n, name in enumerate(BIRDS, start=1)))
    trees.write(root / "image_class_labels.txt", (f"{n} {n % 2 + 1}" for n in names))
    trees.write(root / "train_test_split.txt", (f"{n} {int(n < 11)}" for n in names))
    trees.write(root / "bounding_boxes.txt", (f"{n} 6.0 2.0 32.0 20.5" for n in names))
    for number, name in names.items():
        crop(root / "images" / name, number)
    return root


def boxed(root: Path) -> Path:
    """Other photos of its classes, a box for each."""
    names = [f"{bird}/{number}.jpg" for number in (20, 21) for bird in BIRDS]
    for number, name in enumerate(names):
        crop(root / name, number)
    trees.write(root / "boxes.csv", (f"{name},12,10,36,30" for name in names))
    return root


def named(root: Path) -> Path:
    """Photos in folders that are named after classes of the embedded model."""
    for number, name in enumerate(WORDS * 3):
        crop(root / name / f"{number}.jpg", number, (320, 240))
    return root


def ilsvrc_10(root: Path) -> Path:
    """Lists of wsolevaluation with ImageNet's labels, and photos of odd and even numbers."""
    ids = {f"val/ILSVRC2012_val_0000000{number}.JPEG": number for number in range(1, 7)}
    lists = root / "metadata" / "test"
    trees.write(lists / "image_ids.txt", ids)
    trees.write(lists / "class_labels.txt", (f"{id},{(0, 217, 491)[n % 3]}" for id, n in ids.items()))
    trees.write(lists / "image_sizes.txt", (f"{id},64,48" for id in ids))
    trees.write(lists / "localization.txt", (f"{id},10,5,50,{30 + n}" for id, n in ids.items()))
    for id, number in ids.items():
        crop(root / id, number)
    return root


def wsolevaluation(root: Path) -> Path:
    for name, split in (("CUB", "test"), ("CUB", "val"), ("ILSVRC", "val")):
        trees.wsol(root, name, split, f"dataset/{name}")
    return trees.openimages(root)


def pairs(root: Path) -> Path:
    trees.photo(root / "a b.jpg", (640, 480))
    return trees.write(root / "pairs.txt", ["a b.jpg 3"])


def cub_model(root: Path) -> Path:
    """A network with the classes of the small CUB."""
    net = TRTLocalizer(small_timm("vit_tiny_patch16_224", num_classes=2))
    net.classes = BIRDS
    net.save_pretrained(root)
    return root


def checkpoint(method: str) -> Callable[[Path], None]:
    """A file of the authors' code."""
    return lambda path: torch.save(official(method), path)


STAND_INS: dict[str, Callable[[Path], Any]] = {
    "more": lambda root: crop(root / "cup.jpg", 1),
    "*.png": lambda path: crop(path.with_name("drawing.png"), 2),
    "bird.jpg": lambda path: crop(path, 3, (320, 240)),
    "photos": named,
    "my_photos": classes,
    "my_other_photos": classes,
    "CUB_200_2011": cub,
    "DATA/CUB_200_2011": cub,
    "DATA/OpenImages": trees.openimages,
    "DATA/ILSVRC": trees.ilsvrc,
    "DATA/ilsvrc-10": ilsvrc_10,
    "DATA/boxed": boxed,
    "wsolevaluation": wsolevaluation,
    "ILSVRC": trees.ilsvrc,
    "ImageNet_ILSVRC2012": trees.ts_cam,
    "tiny-imagenet-200": trees.tiny,
    "caltech-101": trees.caltech,
    "VOCdevkit": lambda root: trees.voc(root.parent),
    "coco": trees.coco,
    "yolo": trees.yolo,
    "pairs": pairs,
    "my-cub-model": cub_model,
    "model_best.pth": checkpoint("trt"),
    "model_best_top1_loc.pth": checkpoint("trt"),
    "ts-cam/model_best.pth": checkpoint("ts-cam"),
    "names.txt": lambda path: trees.write(path, ["ape", "bee", "cow", "dog", "elk"]),
}


def official(method: str, *, num_classes: int = 5) -> dict[str, Tensor]:
    """A state dict by the authors' names: that of a network of ours, renamed."""
    torch.manual_seed(0)
    backbone = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=1, num_classes=num_classes
    )
    net: nn.Module = TRTLocalizer(shaken(backbone)) if method == "trt" else TSCAMNet(shaken(backbone))
    renamed = {"tpsm.block": "score_layer", "tpsm.norm": "score_norm", "tpsm.head": "score_head"}
    renamed |= {f"cam.{ours}": f"camfuse_block.cam_{theirs}" for ours, theirs in (("block", "tr"), ("norm", "norm"))}
    renamed |= {"cam.head": "camfuse_block.cam_head"}
    found = {}
    for name, tensor in net.state_dict().items():
        start = next((ours for ours in renamed if name.startswith(ours)), None)
        theirs = renamed[start] + name.removeprefix(start) if start else name.removeprefix("backbone.")
        found[f"module.{theirs}"] = tensor
    return found


def small_timm(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
    """In place of ``timm.create_model``: a transformer with three narrow blocks, and never published weights."""
    if name.startswith(("local-dir:", "hf-hub:")):
        return create_model(name, pretrained=pretrained, **settings)
    try:
        narrow = {key: value for key, value in TINY.items() if key in ("depth", "embed_dim", "num_heads")}
        return shaken(create_model(name, pretrained=False, **{**narrow, **settings}))
    except (TypeError, AssertionError, RuntimeError, AttributeError):  # a CNN has no such settings
        return create_model(name, pretrained=False, **settings)


def small_localizer() -> TRTLocalizer:
    """In place of the embedded model where it costs too much: two blocks, the same classes."""
    backbone: Any = small_timm("vit_tiny_patch16_224", depth=2)
    backbone.recipe = {"builder": "timm", "name": "vit_tiny_patch16_224", "settings": {"depth": 2}}
    return TRTLocalizer(backbone).eval()


class Hub:
    """Takes the place of HfApi: a folder for each repository, and what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.fails = folder, list[Any](), ""

    def __call__(self, token: str | None = None) -> Hub:
        self.asked.append(("token", token))
        return self

    def create_repo(self, repo_id: str, **how: Any) -> None:
        if self.fails:
            raise RuntimeError(f"{self.fails}\nwith details")
        (self.folder / repo_id).mkdir(parents=True, exist_ok=how["exist_ok"])
        self.asked.append(("create", how["private"]))

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.asked.append(("branch", branch))

    def file_exists(self, repo_id: str, filename: str, *, revision: str | None = None) -> bool:
        return (self.folder / repo_id / filename).exists()

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None = None) -> str:
        return str(self.folder / repo_id / filename)

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **how: Any) -> Any:
        for name in allow_patterns:
            (self.folder / repo_id / name).write_bytes((Path(folder_path) / name).read_bytes())
        self.asked.append(("upload", how["revision"], how["commit_message"]))
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def replace(patch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Small networks, a hub in a folder, no viewer; explainers that a page registers are forgotten after it."""
    patch.setattr(timm, "create_model", small_timm)
    if "push_to_hub" in text:
        hub = Hub(folder / ".hub")
        patch.setattr("huggingface_hub.HfApi", hub)
        patch.setattr("huggingface_hub.get_token", lambda: "secret")
        patch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(hub.folder / name))
    if "trt-cam export --" in text:  # of the embedded model, which takes a quarter of a minute each time
        patch.setattr(weights, "embedded", small_localizer)
    patch.setattr(Image.Image, "show", lambda self, title=None: None)
    patch.setenv("MPLBACKEND", "agg")
    list_explainers()
    patch.setattr(registry, "_registry", dict(registry._registry))
    patch.setattr(registry, "_loaded", set(registry._loaded))
