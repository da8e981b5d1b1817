"""A run for the tests of its page: small, and hostile in every name that reaches the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from families import FAMILIES
from PIL import Image

from trt_cam.evaluation import Evaluation, evaluate
from trt_cam.evaluation.tables import write

PHOTOS = 11
SET = "a <b>set</b> \" ' & </script>"  # a folder and a folder in it: no name holds a slash
CLASSES = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a, \"b\" & 'c'", "d", "e", "f", "g"]


def photo_id(number: int) -> str:
    """Quotes and the end of a script in the middle."""
    return f"val/{number} \"q\" 'q' </script><img src=x onerror=alert(3)>_{number:03d}.png"


def boxes_tree(root: Path) -> Path:
    """A data set in wsolevaluation's lists: photos of several sizes, one or two boxes each."""
    rng, lists = np.random.default_rng(0), root / "metadata" / "test"
    lists.mkdir(parents=True)
    files: dict[str, list[str]] = {"image_ids": [], "class_labels": [], "image_sizes": [], "localization": []}
    for number in range(PHOTOS):
        name, (w, h) = photo_id(number), (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        pixels = rng.integers(0, 120, (h, w, 3), dtype=np.uint8)
        for _ in range(1 + number % 2):
            x0, y0 = int(rng.integers(0, w - 25)), int(rng.integers(0, h - 25))
            pixels[y0 : y0 + 20, x0 : x0 + 22] = rng.integers(100, 255, 3)
            files["localization"].append(f"{name},{x0},{y0},{x0 + 21},{y0 + 19}")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
        files["image_ids"].append(name)
        files["class_labels"].append(f"{name},{number % 3}")
        files["image_sizes"].append(f"{name},{w},{h}")
    for file, lines in files.items():
        (lists / f"{file}.txt").write_text("\n".join(lines) + "\n")
    return root


def masks_tree(root: Path) -> Path:
    """The same photos with masks."""
    boxes_tree(root)
    lists, lines = root / "metadata" / "test", []
    for number in range(PHOTOS):
        mask = np.zeros((50, 60), dtype=np.uint8)
        mask[5 : 30 + number, 10:40] = 255
        Image.fromarray(mask).save(root / f"val/{number}_mask.png")
        lines.append(f"{photo_id(number)},val/{number}_mask.png,")
    (lists / "image_sizes.txt").unlink()
    (lists / "localization.txt").write_text("\n".join(lines) + "\n")
    return root


def run(data: Path, out: Path, **options: Any) -> Evaluation:
    """Three methods of a tiny model, in batches of three photos, written as the command writes it."""
    model = FAMILIES["vit"]()
    model.classes = CLASSES
    options = {"methods": ["cam", "rollout", "grad-cam"], "batch_size": 3, **options}
    threshold = options.pop("threshold", None)
    found = evaluate(data, model=model, out=out, **options)
    write(found, threshold=threshold)
    return found


def content(page: Path) -> dict[str, Any]:
    """The data that a page holds."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert len(blocks) == 1
    found: dict[str, Any] = json.loads(blocks[0])
    return found
