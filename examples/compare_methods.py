"""TRT beside TS-CAM, CAM, Grad-CAM and plain attention: one frozen trunk, the same photos and labels, several seeds.

    python examples/compare_methods.py --data DIR --work DIR [--seeds 0 1 2]

DIR and the work folder are those of ``make_embedded_model.py``, which must have run: its features and maps are read.
Trained for each seed: a plain classifier (for raw attention, rollout and Grad-CAM), TS-CAM, TRT by the paper's losses,
and TRT taught maps, as the embedded model is, with a learnt spread of its class map. Evaluated by ``maxboxacc_v2`` on
ilsvrc-10's 500 photos at 352 pixels, class given but for Top-1 Loc. "even" photos have odd ones' thresholds, each the
best for its figure; "all" have the best on all, an oracle, the same for every row. "+ affinity": the map is spread;
TRT's class map before the product. All networks share the trunk, so its features are kept once.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from embedded.features import Cache, say
from embedded.heads import train_heads
from embedded.maps import carry, kept, standardising, stretch, teach_foreground
from embedded.recipe import Recipe
from embedded.rivals import rival
from embedded.spreading import teach_spreading
from embedded.views import SIZES, as_input, collect, rarity
from make_embedded_model import LAST_MAPS, new_network, standardised
from PIL import Image
from torch import Tensor

import trt_cam
from trt_cam.metrics.baselines import centred_squares
from trt_cam.metrics.localization import inclusive_iou, overlaps
from trt_cam.metrics.protocols import get_protocol, scale_boxes, threshold_list
from trt_cam.models.hybrid import CHANNELS, TrunkCam
from trt_cam.observe import answering

PROTOCOL, THRESHOLDS = get_protocol("maxboxacc_v2"), threshold_list()
Maps = Iterator[tuple[str, Tensor, Tensor]]
"""Name of a row, logits (B, K) that rank its classes, and maps (B, Gh, Gw)."""


class Photos:
    """The evaluated photos: labels, ground truth, and the trunk's features of them."""

    def __init__(self, data: Path, work: Path, trunk: Any, cam: TrunkCam) -> None:
        self.samples = list(trt_cam.load_dataset(data / "ilsvrc-10", split="test"))
        self.labels = torch.tensor([sample.label for sample in self.samples])
        self.truth = [scale_boxes(sample.boxes, sample.size, PROTOCOL) for sample in self.samples]  # type: ignore[arg-type]
        self.odd = np.array([int(re.findall(r"\d+", sample.id)[-1]) % 2 == 1 for sample in self.samples])
        self.features = kept(work / "test-features.npy", lambda: torch.cat(list(self.run(trunk))).half())
        self.cam = cam

    def run(self, trunk: Any) -> Iterator[Tensor]:
        """All of the trunk's outputs, joined, (1, 1664, 22, 22) a photo."""
        for sample in self.samples:
            photo = Image.open(sample.path).convert("RGB").resize((SIZES["whole"],) * 2, Image.Resampling.BICUBIC)
            with torch.no_grad():
                yield torch.cat(trunk(as_input(photo)[None]), dim=1)

    def batches(self, size: int = 20) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The trunk's stages and the labels."""
        for start in range(0, len(self.samples), size):
            rows = slice(start, start + size)
            yield list(self.features[rows].float().split([*CHANNELS, 1280], dim=1)), self.labels[rows]


def unseen(labels: Tensor) -> Tensor:
    """Images for a network whose trunk answers from its kept features: nothing but it would look at them."""
    return torch.zeros(()).expand(len(labels), 3, SIZES["whole"], SIZES["whole"])


def explained(net: Any, names: list[str], photos: Photos) -> Maps:
    """Maps of explainers, which run the network from the trunk's features."""
    explainers = {name: trt_cam.create_explainer(name, net) for name in names}
    trunk = getattr(net, "backbone", net).patch_embed.trunk
    for stages, labels in photos.batches():
        with answering(trunk, stages):
            for name, explain in explainers.items():
                found = explain(unseen(labels), labels)
                yield name, found.logits, found.grid.detach()
                yield f"{name} + affinity", found.logits, spread(found.grid.detach(), stages)


def localized(net: Any, photos: Photos, name: str) -> Maps:
    """M_T times M_C of a localizer, and M_T alone."""
    for stages, labels in photos.batches():
        with torch.no_grad(), answering(net.backbone.patch_embed.trunk, stages):
            out = net(unseen(labels), labels)
        yield name, out.logits, out.fused
        yield f"{name} + affinity", out.logits, out.m_t * spread(out.m_c, stages)
        yield f"{name}, M_T alone", out.logits, out.m_t


def of_trunk(photos: Photos, head: Any, mean: Tensor, std: Tensor) -> Maps:
    """The trunk's class map, and times the answer of the convolutional head that is taught the same maps."""
    for stages, labels in photos.batches():
        seed, logits = photos.cam.maps(stages[-1], labels[:, None])[:, 0], photos.cam.logits(stages[-1])
        answer = head((torch.cat(stages[:-1], dim=1) - mean) / std)[:, 0].sigmoid().detach()
        yield "CAM", logits, seed
        yield "CAM + affinity", logits, spread(seed, stages)
        yield "convolutional head", logits, answer * seed.clamp(min=0)
        yield "convolutional head + affinity", logits, answer * spread(seed, stages)


def spread(maps: Tensor, stages: list[Tensor]) -> Tensor:
    """One step of affinity over the trunk's middle stages."""
    return carry(stretch(maps), torch.cat(stages[:-1], dim=1))


def outcomes(maps: Maps, photos: Photos) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By row: IoU (n, 2, T) of the one box and of the best box, and whether the first class is right (n,)."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for name, logits, grids in maps:
        for grid, answer in zip(grids, logits, strict=True):
            at = len(rows[name])
            seen = overlaps(PROTOCOL.heat(grid.double().numpy()), photos.truth[at], PROTOCOL, THRESHOLDS)
            rows[name].append((np.stack([seen.largest, seen.every]), int(answer.argmax()) == photos.labels[at]))
    return {name: tuple(map(np.array, zip(*found, strict=True))) for name, found in rows.items()}  # type: ignore[misc]


def figures(iou: np.ndarray, right: np.ndarray, rows: np.ndarray, choose: np.ndarray) -> list[float]:
    """GT-known at 0.5 and 0.7, MaxBoxAccV2 and Top-1 Loc of some photos, in percent, thresholds the best on others."""

    def hits(which: int, least: float) -> np.ndarray:
        good = iou[:, which] >= least
        return good[:, good[choose].mean(axis=0).argmax()][rows]

    v2 = np.mean([hits(1, least).mean() for least in (0.3, 0.5, 0.7)])
    loc = (hits(0, 0.5) & right[rows]).mean()
    return [100 * hits(0, 0.5).mean(), 100 * hits(0, 0.7).mean(), 100 * v2, 100 * loc]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray], photos: Photos, least: float) -> str:
    """Even photos won less lost, means over seeds, in percent, with a bootstrap interval over photos."""

    def hits(iou: np.ndarray) -> np.ndarray:
        good = iou[:, 0] >= least
        return good[:, good[photos.odd].mean(axis=0).argmax()][~photos.odd].astype(float)

    each = np.mean([hits(iou) for iou in ours], axis=0) - np.mean([hits(iou) for iou in theirs], axis=0)
    draws = np.random.default_rng(0).integers(0, len(each), (10000, len(each)))
    low, high = np.percentile(100 * each[draws].mean(axis=1), [2.5, 97.5])
    return f"{100 * each.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def squares(photos: Photos) -> tuple[np.ndarray, np.ndarray]:
    """Centred squares, as if their sides were thresholds."""
    sides = centred_squares(PROTOCOL.grid)
    iou = np.stack([inclusive_iou(sides, truth).max(axis=1) for truth in photos.truth])  # (n, sides)
    return np.stack([iou, iou], axis=1), np.zeros(len(iou), dtype=bool)


def everything(data: Path, work: Path, seeds: list[int], samples: tuple[int, int]) -> tuple[dict[str, Any], Photos]:
    """All rows, each with its outcome for every seed; a seed that was finished before is read."""
    listed = collect(data)
    cache, maps = Cache(work, len(listed)), kept(work / LAST_MAPS, no_maps)
    net = new_network(Recipe())
    photos = Photos(data, work, net.backbone.patch_embed.trunk, net.cam)
    rows: dict[str, list[Any]] = defaultdict(list)
    rows["centred square"] = [squares(photos)]
    for seed in seeds:
        path = work / f"outcomes-{seed}.npz"
        if not path.exists():
            found = dict(
                of_seed(cache, maps, photos, rarity(listed, Recipe().rare), replace(Recipe(), seed=seed), samples)
            )
            np.savez(
                path, names=list(found), iou=[iou for iou, _ in found.values()], right=[r for _, r in found.values()]
            )
        with np.load(path) as outcome:
            for name, iou, right in zip(outcome["names"], outcome["iou"], outcome["right"], strict=True):
                rows[str(name)].append((iou, right))
    return rows, photos


def of_seed(
    cache: Cache, maps: Tensor, photos: Photos, frequency: np.ndarray, recipe: Recipe, samples: tuple[int, int]
) -> Iterator[tuple[str, Any]]:
    """Rows of one seed, whose networks are trained where they are not there."""
    taught, path = standardised(new_network(recipe), cache), cache.work / f"taught-{recipe.seed}.pt"
    if path.exists():
        taught.load_state_dict(torch.load(path, weights_only=True))
    else:
        train_heads(taught, cache, maps, frequency, replace(recipe, samples=recipe.samples[-1:]))
        teach_spreading(taught.cam, cache, maps, recipe)
        torch.save(taught.state_dict(), path)
    yield from outcomes(localized(taught.eval(), photos, "TRT (taught)"), photos).items()
    mean, std = standardising(cache)
    head = teach_foreground(cache, maps, mean, std, recipe.seed, steps=500)
    yield from outcomes(of_trunk(photos, head, mean, std), photos).items()
    plain = rival("classifier", cache, frequency, recipe, samples)
    yield from outcomes(explained(plain, ["raw-attention", "rollout", "grad-cam"], photos), photos).items()
    yield from outcomes(
        explained(rival("ts-cam", cache, frequency, recipe, samples), ["ts-cam"], photos), photos
    ).items()
    paper: Any = rival("trt-paper", cache, frequency, recipe, samples)
    yield from outcomes(localized(paper, photos, "TRT (paper)"), photos).items()
    paper.cam = TrunkCam()  # without a learnt spread
    paper.cam.load_state_dict(photos.cam.state_dict(), strict=False)
    yield from outcomes(localized(paper, photos, "TRT (paper's losses, trunk's class map)"), photos).items()


def no_maps() -> Tensor:
    """What to do where the last maps are not there."""
    raise SystemExit(f"--work needs {LAST_MAPS}; run make_embedded_model.py with this --data and --work first")


def report(rows: dict[str, Any], photos: Photos) -> None:
    """Both tables in markdown."""
    every, best = np.ones_like(photos.odd), "TRT (taught)"
    print("| method | Top-1 Cls | even: 0.5 / 0.7 / V2 / Top-1 Loc | all: the same | ours less it, even, 0.5 | 0.7 |")
    print("|" + "---|" * 6)
    for name, seeds in rows.items():
        cells = [f"{100 * np.mean([right.mean() for _, right in seeds]):.1f}"]
        for part, choose in ((~photos.odd, photos.odd), (every, every)):
            found = np.array([figures(iou, right, part, choose) for iou, right in seeds])
            cells.append(" / ".join(f"{m:.1f} ± {s:.1f}" for m, s in zip(found.mean(0), found.std(0), strict=True)))
        ious = [iou for iou, _ in seeds]
        cells += [difference([iou for iou, _ in rows[best]], ious, photos, least) for least in (0.5, 0.7)]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the photos' folder")
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="features and maps; networks are kept there"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument(
        "--samples", type=int, nargs=2, default=(7200, 3600), help="photos seen in stage 1 and 2 of the others"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report(*everything(options.data, options.work, options.seeds, tuple(options.samples)))
    say("done")


if __name__ == "__main__":
    main()
