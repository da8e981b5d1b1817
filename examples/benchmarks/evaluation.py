"""What an evaluation costs beyond its explanations, and what it keeps in memory.

    OMP_NUM_THREADS=1 python examples/benchmarks/evaluation.py DATA/ilsvrc-10 [--split test] [--photos 40] [--rounds 5]
    OMP_NUM_THREADS=1 python examples/benchmarks/evaluation.py DATA/ilsvrc-10 --memory 10000

Throughput: CPU time of this process for the bare explainer on images that are ready in memory, against `evaluate` from
files to written parts and figures, interleaved, one thread, no worker processes; the median of the rounds' ratios.
Memory: resident size while so many copies of one small photo are evaluated by a tiny model, at 2,000 and at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from PIL import Image

import trt_cam
from trt_cam.data.catalog import load_dataset
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import load_photo
from trt_cam.evaluation import evaluate
from trt_cam.models.weights import load_model


def throughput(folder: str, split: str | None, photos: int, rounds: int, method: str) -> None:
    net = load_model(None)
    data = load_dataset(folder, split=split)
    size = net.preprocessing.size
    pixels = [fit_photo(load_photo(data[i].path), size)[0] for i in range(photos)]
    images = net.preprocessing.normalize(torch.stack([torch.from_numpy(one) for one in pixels]))
    labels = torch.tensor([data[i].label for i in range(photos)])
    explain = trt_cam.create_explainer(method, net)

    def bare() -> None:
        for start in range(0, photos, 8):
            explain(images[start : start + 8], labels[start : start + 8])

    def whole() -> None:
        evaluate(data, model=net, methods=[method], refine=None, limit=photos, batch_size=8)

    ratios = []
    for _ in range(rounds + 1):
        before = seconds(bare)
        spent = seconds(whole)
        ratios.append((before + seconds(bare)) / 2 / spent)
    print(
        f"{method}: evaluate reaches {statistics.median(ratios[1:]):.0%} of the bare explainer's photos per CPU second"
    )


def seconds(run: object) -> float:
    start = time.process_time()
    run()  # type: ignore[operator]
    return time.process_time() - start


def memory(count: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7, img_size=32, patch_size=8).eval()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        lists = root / "metadata" / "test"
        lists.mkdir(parents=True)
        Image.effect_noise((40, 30), 80).convert("RGB").save(root / "photo.png")
        names = [f"photo_{number:06d}.png" for number in range(count)]
        for name in names:
            (root / name).hardlink_to(root / "photo.png")
        (lists / "image_ids.txt").write_text("\n".join(names))
        (lists / "class_labels.txt").write_text("\n".join(f"{name},1" for name in names))
        (lists / "image_sizes.txt").write_text("\n".join(f"{name},40,30" for name in names))
        (lists / "localization.txt").write_text("\n".join(f"{name},5,5,30,25" for name in names))
        told: dict[int, float] = {}

        def progress(done: int, *_: int) -> None:
            if done in (2000, count):
                told[done] = resident()

        evaluate(root, model=model, methods=["cam"], batch_size=50, out=Path(folder) / "run", progress=progress)
        print("resident MB at", ", ".join(f"{done} photos: {size:.0f}" for done, size in told.items()), end="; ")
        print(f"with all figures' rows: {resident():.0f}")


def resident() -> float:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DIR", help="a data set with boxes")
    parser.add_argument("--split", help="of the data set (default: the only one)")
    parser.add_argument("--photos", type=int, default=40, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--methods", default="trt,grad-cam", help="separated by commas (default: %(default)s)")
    parser.add_argument("--memory", type=int, metavar="PHOTOS", help="look at memory, with so many photos")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        memory(args.memory)
        return
    for method in args.methods.split(","):
        throughput(args.data, args.split, args.photos, args.rounds, method)


if __name__ == "__main__":
    main()
