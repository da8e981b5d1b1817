"""Boxes at all thresholds against OpenCV in the evaluator's own loop: CPU time per map, one process, one thread.

    OMP_NUM_THREADS=1 python examples/benchmarks/boxes.py [wsol_boxes.npz] [--rounds 5]

The maps are those of 224 x 224 pixels among ``map_000``, ``map_001``, ... of the file; without a file, 20 random grids
of 7, 14 or 28 cells enlarged to that size. All columns are measured in turn on each map, and a map's time is the median
of its rounds. The table has medians over the maps, and of the ratio to OpenCV on the same map also the range. Every box
is compared with OpenCV's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from trt_cam.ops import _trees
from trt_cam.ops.maps import minmax, resize
from trt_cam.ops.thresholds import boxes_at_thresholds

try:
    import cv2
except ImportError:
    raise SystemExit("needs OpenCV to compare with: pip install 'trt-cam[bench]'") from None

SIDE = 224
Found = list[list[list[int]]]
Way = Callable[[np.ndarray, np.ndarray, str], object]


def read(path: Path | None) -> list[np.ndarray]:
    """Maps (224, 224) float64 in [0, 1]."""
    if path is not None:
        numbers = np.load(path)
        maps = [numbers[name].astype(np.float64) for name in sorted(numbers.files) if name.startswith("map_")]
        return [heat for heat in maps if heat.shape == (SIDE, SIDE)]
    generator = torch.Generator().manual_seed(0)
    grids = [torch.rand(1, cells, cells, generator=generator, dtype=torch.float64) for cells in (7, 14, 28) * 7][:20]
    return [minmax(resize(grid, (SIDE, SIDE), "bicubic"))[0][0].numpy() for grid in grids]


def opencv(heat: np.ndarray, thresholds: np.ndarray, select: str) -> Found:
    """The evaluator's loop: the whole hierarchy of contours at each threshold."""
    grey = (heat * 255).astype(np.uint8)
    found = []
    for threshold in thresholds:
        _, mask = cv2.threshold(grey, int(threshold * np.max(grey)), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if select == "largest" and contours:
            contours = [max(contours, key=cv2.contourArea)]
        corners = [cv2.boundingRect(contour) for contour in contours]
        found.append([[x, y, x + w, y + h] for x, y, w, h in corners])
    return found


def without_numba(heat: np.ndarray, thresholds: np.ndarray, select: str) -> object:
    """As where numba is not installed."""
    loops, _trees.compiled = _trees.compiled, lambda: None  # type: ignore[assignment]
    try:
        return boxes_at_thresholds(heat, thresholds, select=select)  # type: ignore[arg-type]
    finally:
        _trees.compiled = loops  # type: ignore[assignment]


def with_numba(heat: np.ndarray, thresholds: np.ndarray, select: str) -> object:
    return boxes_at_thresholds(heat, thresholds, select=select)  # type: ignore[arg-type]


def times(maps: list[np.ndarray], ways: dict[str, Way], thresholds: np.ndarray, select: str, rounds: int) -> np.ndarray:
    """(maps, ways) milliseconds."""
    table = []
    for heat in maps:
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.process_time()
                way(heat, thresholds, select)
                seconds[name].append(time.process_time() - start)
        table.append([1000 * statistics.median(values) for values in seconds.values()])
    return np.array(table)


def compare(maps: list[np.ndarray], ways: dict[str, Way], thresholds: np.ndarray, select: str) -> int:
    """How many boxes were compared; raises where one differs. Also compiles."""
    boxes = 0
    for heat in maps:
        wanted = [sorted(at) for at in opencv(heat, thresholds, select)]
        for name, way in list(ways.items())[1:]:
            found = way(heat, thresholds, select)
            if [sorted(found.at(t).tolist()) for t in range(len(thresholds))] != wanted:  # type: ignore[attr-defined]
                raise SystemExit(f"{name} differs from OpenCV")
        boxes += sum(len(at) for at in wanted)
    return boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, nargs="?", help="wsol_boxes.npz")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    maps = read(args.maps)
    ways: dict[str, Way] = {"OpenCV": opencv, "with numba": with_numba, "without numba": without_numba}
    if _trees.compiled() is None:
        print("numba is not installed, its column is left out: pip install 'trt-cam[fast]'\n")
        del ways["with numba"]
    print(
        f"{len(maps)} maps of {SIDE} x {SIDE}, OpenCV {cv2.__version__}, {args.rounds} rounds; CPU ms per map, median;"
    )
    print("in brackets how many times as fast as OpenCV, median (range)\n")
    print(f"| thresholds | boxes | {' | '.join(ways)} | compared |\n|{'---|' * (len(ways) + 3)}")
    for count in (100, 1000):
        thresholds = np.arange(0, 1, 1 / count)
        for select in ("largest", "all"):
            boxes = compare(maps, ways, thresholds, select)
            spent = times(maps, ways, thresholds, select, args.rounds)
            cells = [f"{np.median(spent[:, 0]):.2f}"]
            for own in spent[:, 1:].T:
                ratio = spent[:, 0] / own
                cells.append(f"{np.median(own):.2f} ({np.median(ratio):.1f}; {ratio.min():.1f} to {ratio.max():.1f})")
            print(f"| {count} | {select} | {' | '.join(cells)} | {boxes} equal |", flush=True)


if __name__ == "__main__":
    main()
