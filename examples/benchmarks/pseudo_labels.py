"""Memory and rate of pseudo-labels over many photos: resident memory on the way and at the end, in one process.

    python examples/benchmarks/pseudo_labels.py [--photos 10000] [--size 64] [--batch-size 8] [--step 2000]

Makes small photos in a temporary folder, one in a hundred twice, labels them with the embedded model in all formats,
and prints a table. ``parts`` is the memory while photos are explained, after so many; ``files`` the highest ever,
the writing of all files included; ``hashes`` what telling a million copies apart takes.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from PIL import Image

from trt_cam.pseudolabels import pseudo_label
from trt_cam.pseudolabels.merging import firsts


def make(folder: Path, count: int) -> None:
    """Photos of 48 x 64 pixels, a bright rectangle on noise."""
    for number in range(count):
        rng, path = np.random.default_rng(number), folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 100 == 99:
            shutil.copy(folder / f"{(number - 99) // 1000:03d}" / f"{number - 99:06d}.png", path)
            continue
        pixels = rng.integers(0, 120, (48, 64, 3), dtype=np.uint8)
        x, y = rng.integers(0, 40), rng.integers(0, 24)
        pixels[y : y + 24, x : x + 24] = rng.integers(150, 255, 3)
        Image.fromarray(pixels).save(path, compress_level=1)


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000, help="how many are made (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side of the input (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="photos in one forward (default: %(default)s)")
    parser.add_argument(
        "--step", type=int, default=2000, help="photos between two rows of the table (default: %(default)s)"
    )
    args = parser.parse_args()
    seen: dict[int, float] = {}
    times: list[float] = []

    def progress(done: int, count: int, failed: int) -> None:
        times.append(time.monotonic())
        seen.setdefault(done // args.step * args.step if done < count else count, resident())

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "photos"), args.photos)
        options = {"target": "predicted", "size": args.size, "batch_size": args.batch_size, "progress": progress}
        found = pseudo_label(Path(folder, "photos"), Path(folder, "run"), formats=("coco", "yolo", "voc"), **options)
        times.append(time.monotonic())
    print("| photos | parts, MB |\n|---|---|")
    for done, memory in seen.items():
        if done:
            print(f"| {done} | {memory:.1f} |")
    print(f"| files | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6:.1f} |")
    explaining, writing = times[-2] - times[0], times[-1] - times[-2]
    rates = f"{found.photos / explaining:.0f} photos/s explained on one thread, {found.photos / writing:.0f}/s written"
    print(f"{found.labelled} labelled, {found.copies} copies; {rates}")
    tracemalloc.start()
    firsts(np.random.default_rng(0).integers(0, 2**63, (10**6, 2)).astype(np.uint64))
    print(f"hashes: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} bytes a photo at the peak")


if __name__ == "__main__":
    main()
