"""What frozen training costs: the cache of the trunk's tokens, each stage, and beside it training of the whole network.

    python examples/benchmarks/training.py [PHOTOS] [--model vit_small_patch16_224] [--photos 256] [--threads 1]

PHOTOS is a folder with a folder of photos for each class; without it photos of noise are made. Weights are random: cost
does not depend on them, but for stage tpsm, where trained attention keeps fewer tokens. Time is CPU time of this
process, which reads the photos too (on more threads their waiting for each other counts as well); memory is its peak
when the stages are done, files read through maps included (Linux).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trt_cam import TRTLocalizer
from trt_cam.training.cache import Cache, CachedBatches
from trt_cam.training.examples import Examples, open_examples
from trt_cam.training.frozen import FrozenTrainee
from trt_cam.training.losses import classification_loss
from trt_cam.training.networks import Trainee
from trt_cam.training.order import Order
from trt_cam.training.photos import PhotoBatches
from trt_cam.training.views import View

STAGES = ("tpsm", "cam")


def made(root: Path, count: int) -> Path:
    """Photos of noise, of two classes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        place = root / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (375, 500, 3), dtype=np.uint8)).save(place / f"{index}.jpg")
    return root


def some(folder: Path, count: int) -> Examples:
    """So many photos, of all classes alike."""
    examples = open_examples(folder)
    return examples.at(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int))


def milliseconds(trainee: Trainee, batches: Iterable[dict[str, Tensor]], stage: str, precision: str) -> float:
    """CPU time for one photo of a stage's training, reading and optimizer included; the first step is not counted."""
    optimizer = torch.optim.AdamW(trainee.begin(stage).values(), lr=1e-4)
    trainee.ready(stage)
    seen, start = 0, 0.0
    for place, batch in enumerate(batches):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            logits = trainee(batch, stage)
        classification_loss(logits, batch["label"]).backward()
        optimizer.step()
        start, seen = (start, seen + len(batch["label"])) if place else (time.process_time(), 0)
    return 1000 * (time.process_time() - start) / seen


def peak() -> float:
    """Most memory that this process has held, in GB."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def measure(examples: Examples, model: str, batch: int, work: Path) -> dict[str, Any]:
    """One row: milliseconds of CPU for a photo, GB."""
    torch.manual_seed(0)
    net = TRTLocalizer(model, len(examples.classes))
    trainee = FrozenTrainee(net)
    view, order = View(net.preprocessing, "flip"), Order(len(examples), batch)
    cache = Cache(work / "cache", trainee, STAGES, examples, view)
    start = time.process_time()
    cache.fill(say=print)
    row: dict[str, Any] = {"precision": cache.precision}
    row["kB"] = cache.parts.dtype.itemsize / 1000
    row["trunk"] = 1000 * (time.process_time() - start) / len(examples)
    for stage in STAGES:
        batches = CachedBatches(cache, order, trainee.reads(stage)).epoch(0)
        row[stage] = milliseconds(trainee, batches, stage, cache.precision)
    row["GB"] = peak()
    photos = PhotoBatches(examples, view, batch=16, say=print).epoch(0)
    net.requires_grad_(True)
    row["all"] = milliseconds(Trainee(net), islice(photos, 3), "tpsm", cache.precision)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="PHOTOS", help="a folder for each class (default: noise)"
    )
    parser.add_argument("--model", default="vit_small_patch16_224", help="of timm (default: %(default)s)")
    parser.add_argument("--photos", type=int, default=256, help="how many (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="photos of an update (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as work:
        examples = some(args.folder or made(Path(work) / "photos", args.photos), args.photos)
        row = measure(examples, args.model, args.batch, Path(work))
    minutes = 3000 * (row["trunk"] + 8 * row["tpsm"] + 4 * row["cam"]) / 60_000
    print("\n| model | precision | kB a view | trunk | stage tpsm | stage cam | GB | all trained | ratio |")
    print("|---" * 9 + "|")
    numbers = [f"{row[name]:.1f}" for name in ("kB", "trunk", *STAGES, "GB", "all")]
    print(f"| {args.model} | {row['precision']} | " + " | ".join(numbers) + f" | {row['all'] / row['tpsm']:.1f} |")
    print(f"\nMilliseconds of CPU for a photo. 3,000 photos, one view, 8 + 4 epochs: {minutes:.1f} CPU minutes.")


if __name__ == "__main__":
    main()
