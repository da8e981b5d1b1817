"""The one place where boxes are read: the default thresholds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import trt_cam
from embedded.views import SIZES, as_input


def odd_photos(data: Path) -> Iterator[tuple[Path, int, Tensor]]:
    """Odd-numbered photos of ilsvrc-10/val: path, class, and the benchmark's boxes as shares of the sides."""
    lists = data / "ilsvrc-10" / "metadata" / "test"
    labels, sizes = read_list(lists / "class_labels.txt"), read_list(lists / "image_sizes.txt")
    boxes = read_list(lists / "localization.txt")
    for name, (size,) in sizes.items():
        if int(re.findall(r"\d+", name)[-1]) % 2:
            yield data / "ilsvrc-10" / name, int(labels[name][0, 0]), boxes[name] / size.repeat(2)


def read_list(path: Path) -> dict[str, Tensor]:
    """Lines ``image id, number, ...`` to (lines, numbers) by image id."""
    found: dict[str, list[list[float]]] = {}
    for line in path.read_text().split():
        name, *numbers = line.split(",")
        found.setdefault(name, []).append([float(number) for number in numbers])
    return {name: torch.tensor(rows) for name, rows in found.items()}


def choose_thresholds(net: Any, data: Path) -> dict[str, dict[str, float]]:
    """The share of the maximum at which most of the odd photos' boxes reach an IoU of 0.5, class given."""
    explain, side = trt_cam.create_explainer("trt", net), SIZES["whole"]
    shares = [round(0.02 * k, 2) for k in range(1, 40)]
    hits = {refine: torch.zeros(len(shares)) for refine in ("none", "affinity")}
    for path, label, boxes in odd_photos(data):
        photo = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        for refine, count in hits.items():
            seen = explain(as_input(photo)[None], torch.tensor([label]), refine=None if refine == "none" else refine)
            for k, share in enumerate(shares):
                (found,) = seen.to_boxes(share)
                count[k] += bool(len(found)) and bool(trt_cam.box_iou(found[:1].float(), boxes * side).max() >= 0.5)
    smooth = {name: F.avg_pool1d(count[None], 3, 1, 1, count_include_pad=False)[0] for name, count in hits.items()}
    return {"trt": {name: shares[int(count.argmax())] for name, count in smooth.items()}}
