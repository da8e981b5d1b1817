"""Where the embedded model's boxes stand: TRT, its branches, and other methods on the same network and photos.

    python examples/benchmarks/localization.py DATA/ilsvrc-10 [--size 352] [--interpolation bicubic] [--out FILE]

DATA is a folder in wsolevaluation's layout: metadata/test/{class_labels,image_sizes,localization}.txt and the
photos under its image ids. The true class is given. A photo is squashed to SIZE x SIZE, its map enlarged to 224 x 224,
stretched to 0..255, thresholded at 0, 5, ..., 250. Columns: share of photos whose largest region's box has an IoU of
0.5, of 0.7, and the mean over IoU 0.3, 0.5, 0.7 of photos with any region that good; "small" are photos whose largest
object covers less than 40 %. "best" takes for each figure the best threshold on the photos reported (an oracle, same
for every row); "fixed" the one threshold that is best at IoU 0.5 on the odd photos. Odd and even go by file number.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trt_cam
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import load_photo
from trt_cam.models.weights import load_model
from trt_cam.ops.maps import minmax, resize

GRID = 224
LEVELS = np.arange(0, 255, 5)
IOUS = np.array([0.3, 0.5, 0.7])


class PreliminaryMap(trt_cam.Explainer):
    """m, before re-attention."""

    name, requires, class_specific = "m", frozenset({"trt"}), False

    def grid(self, seen: Any, target: Any) -> Any:
        return seen.to_grid(seen.output.m)


class ReattentionMap(trt_cam.Explainer):
    """M_T, without the class map."""

    name, requires, class_specific = "M_T", frozenset({"trt"}), False

    def grid(self, seen: Any, target: Any) -> Any:
        return seen.output.m_t


METHODS: dict[str, Any] = {
    "CAM of the trunk (= M_C)": "cam",
    "m": PreliminaryMap,
    "M_T": ReattentionMap,
    "TRT": "trt",
    "raw attention": "raw-attention",
    "rollout": "rollout",
    "ts-cam": "ts-cam",
    "trt-free": "trt-free",
}
BASELINE, DEFAULT = ("CAM of the trunk (= M_C)", "affinity"), ("TRT", "affinity")


@dataclass
class Photo:
    path: Path
    label: int
    boxes: np.ndarray  # (G, 4) shares of width and height

    @property
    def odd(self) -> bool:
        return int(self.path.stem.rsplit("_", 1)[-1]) % 2 == 1

    @property
    def small(self) -> bool:
        return max((b[2] - b[0]) * (b[3] - b[1]) for b in self.boxes) < 0.4


def read(folder: Path) -> list[Photo]:
    lists = {
        name: [line.split(",") for line in (folder / "metadata/test" / f"{name}.txt").read_text().split()]
        for name in ("class_labels", "image_sizes", "localization")
    }
    sizes = {row[0]: np.array([float(row[1]), float(row[2])] * 2) for row in lists["image_sizes"]}
    boxes: dict[str, list[np.ndarray]] = {}
    for row in lists["localization"]:
        boxes.setdefault(row[0], []).append(np.array(row[1:], dtype=float) / sizes[row[0]])
    return [Photo(folder / name, int(label), np.stack(boxes[name])) for name, label in lists["class_labels"]]


def grids(net: Any, names: list[str], images: torch.Tensor, labels: torch.Tensor) -> dict[Any, torch.Tensor]:
    """Maps of every method, plain and refined, from one forward for all that read the localizer's own output."""
    out, shared = {}, None
    for name in names:
        explain = trt_cam.create_explainer(METHODS[name], net)
        if explain.reads_localizer:
            shared = shared or explain.look(images, frozenset({"trt", "middle"}), labels)
        seen = (
            shared if explain.reads_localizer else explain.look(images, explain.explainer.requires | {"middle"}, labels)
        )
        with torch.no_grad():
            out |= {(name, refine): explain.map(seen, labels, refine) for refine in (None, "affinity")}
    return out


def overlaps(job: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(2, T): best IoU with the photo's boxes of the largest region and of any region, at each threshold."""
    heat, truth = job
    out = np.zeros((2, len(LEVELS)))
    for t, level in enumerate(LEVELS):
        for which, select in enumerate(("largest", "all_external")):
            found = trt_cam.boxes_from_map(heat, (level + 0.5) / 255, select=select)
            if len(found):
                out[which, t] = trt_cam.box_iou(found.astype(float), truth * GRID).max()
    return out


def figures(iou: np.ndarray, at: int | None) -> list[float]:
    """Percent at IoU 0.5, 0.7 and the any-region mean, from (n, 2, T); at one threshold or the best for each."""
    hits = (iou[:, :, None, :] >= IOUS[:, None]).mean(axis=0) * 100  # (2, 3, T)
    chosen = hits.max(axis=-1) if at is None else hits[..., at]
    return [chosen[0, 1], chosen[0, 2], chosen[1].mean()]


def best_square(photos: list[Photo]) -> np.ndarray:
    """(n, 2, sides): IoU of centred squares, as if their sides were thresholds."""
    sides = np.arange(0.1, 1.001, 0.02)
    squares = np.stack([0.5 - sides / 2, 0.5 - sides / 2, 0.5 + sides / 2, 0.5 + sides / 2], axis=1)
    return np.stack([np.repeat(trt_cam.box_iou(squares, p.boxes).max(axis=1)[None], 2, axis=0) for p in photos])


def paired(first: np.ndarray, second: np.ndarray, odd: np.ndarray, rows: np.ndarray, iou: float) -> str:
    """Difference of two methods in percent and its 95 % interval, thresholds chosen on the half not counted."""

    def hits(table: np.ndarray) -> np.ndarray:
        good = table[:, 0] >= iou  # (n, T)
        on_odd, on_even = good[odd].mean(axis=0).argmax(), good[~odd].mean(axis=0).argmax()
        return np.where(odd, good[:, on_even], good[:, on_odd])[rows]

    difference = hits(first).astype(float) - hits(second)
    draws = np.random.default_rng(0).integers(0, len(difference), (10000, len(difference)))
    low, high = np.percentile(difference[draws].mean(axis=1) * 100, [2.5, 97.5])
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return f"{difference.mean() * 100:+.1f} [{low:+.1f}, {high:+.1f}] (+{won}/-{lost})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=None, help="folder of a TRT localizer; the embedded one by default")
    parser.add_argument("--size", type=int, default=None, help="pixels; the model's own by default")
    parser.add_argument("--interpolation", default="bicubic", choices=("bicubic", "bilinear"))
    parser.add_argument("--limit", type=int, default=None, help="first so many photos, for a trial")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated rows")
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    args = parser.parse_args()
    photos = read(args.data)[: args.limit]
    net: Any = load_model(args.model)
    size = (args.size or net.preprocessing.size[0],) * 2
    heats: dict[Any, list[np.ndarray]] = defaultdict(list)
    right, started = 0, time.process_time()
    for i in range(0, len(photos), 10):
        batch = photos[i : i + 10]
        images = np.stack([fit_photo(load_photo(p.path), size, "squash", "bicubic")[0] for p in batch])
        images_t = net.preprocessing.normalize(torch.from_numpy(images))
        labels = torch.tensor([p.label for p in batch])
        found = trt_cam.create_explainer("trt", net)(images_t, labels)
        for (name, refine), grid in grids(net, args.methods.split(","), images_t, labels).items():
            grown = minmax(resize(grid, (GRID, GRID), args.interpolation))[0]
            heats[name, refine] += list(grown.numpy())
        right += int((found.logits.argmax(1) == labels).sum())
    print(f"{len(photos)} photos at {size[0]} px, {args.interpolation} maps; {time.process_time() - started:.0f} s CPU")
    print(f"classification top-1 {100 * right / len(photos):.1f} %")
    tables = {("best centred square", None): best_square(photos)}
    with Pool() as pool:
        for row, maps in heats.items():
            jobs = [(heat, photo.boxes) for heat, photo in zip(maps, photos, strict=True)]
            tables[row] = np.stack(pool.map(overlaps, jobs, chunksize=10))
    report(tables, photos, args.out)


def report(tables: dict[Any, np.ndarray], photos: list[Photo], out: Path | None) -> None:
    odd, small = np.array([p.odd for p in photos]), np.array([p.small for p in photos])
    splits = {"all": np.ones_like(odd), "even": ~odd}
    print(
        "\n| method | refine | all, best | small | even, best | small "
        "| fixed at | all, fixed | small | even, fixed | small |"
    )
    print("|" + "---|" * 11)
    kept = []
    for (name, refine), iou in tables.items():
        chosen = int((iou[odd, 0] >= 0.5).mean(axis=0).argmax())
        values = {
            f"{split}, {kind}, {group}": figures(iou[rows & (small if group == "small" else True)], at)
            for kind, at in (("best", None), ("fixed", chosen))
            for split, rows in splits.items()
            for group in ("all", "small")
        }
        at = "-" if name == "best centred square" else f"{LEVELS[chosen] / 255:.2f}"
        cells = [" / ".join(f"{v:.1f}" for v in value) for value in values.values()]
        print(f"| {name} | {refine or '-'} | {' | '.join(cells[:4])} | {at} | {' | '.join(cells[4:])} |", flush=True)
        kept.append({"method": name, "refine": refine, "threshold": at, **values})
    if BASELINE in tables and DEFAULT in tables:
        for other in (BASELINE, ("M_T", None), ("TRT", None)):
            if other not in tables:
                continue
            print(
                f"\n{DEFAULT[0]} + {DEFAULT[1]} minus {other[0]}{' + ' + other[1] if other[1] else ''}, 95 % interval:"
            )
            for split, rows in {**splits, "small": small}.items():
                both = [paired(tables[DEFAULT], tables[other], odd, rows, iou) for iou in (0.5, 0.7)]
                print(f"  {split}: IoU 0.5 {both[0]}, IoU 0.7 {both[1]}")
    if out is not None:
        out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
