"""How far maps of a few channels are from maps of all: ``channels=k`` of score-cam and ablation-cam.

    python examples/benchmarks/channels.py PHOTO... [--size 224] [--counts 8,16,32,64,96]

The embedded model, its predicted class. For each count: the relative L2 distance of the heat from that of all channels,
the correlation of the two, and the IoU of the two boxes at the threshold 0.2; medians over the photos.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from statistics import median

import torch

import trt_cam
from trt_cam.data.frames import fit_photo
from trt_cam.data.photos import expand_photos, load_photo
from trt_cam.models.weights import load_model

METHODS = ("score-cam", "ablation-cam")


def compared(explain: trt_cam.Explanation, whole: trt_cam.Explanation) -> tuple[float, float, float]:
    """Distance, correlation and box IoU of one map with that of all channels."""
    heat, other = explain.resize()[0], whole.resize()[0]
    distance = float((heat - other).norm() / other.norm())
    correlation = float(torch.corrcoef(torch.stack([heat.flatten(), other.flatten()]))[0, 1])
    (box,), (expected,) = explain.to_boxes(), whole.to_boxes()
    return distance, correlation, float(trt_cam.box_iou(box, expected)[0, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="files, folders or patterns")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--counts", default="8,16,32,64,96", help="of channels (default: %(default)s)")
    args = parser.parse_args()
    net = load_model(None)
    counts = [int(count) for count in args.counts.split(",")]
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for path in expand_photos(args.photos):
        image, _ = fit_photo(load_photo(path), (args.size, args.size))
        images = net.preprocessing.normalize(torch.from_numpy(image)[None])
        for method in METHODS:
            whole = trt_cam.create_explainer(method, net)(images)
            for count in counts:
                few = trt_cam.create_explainer(method, net, channels=count)(images, whole.target)
                found[method, count].append(compared(few, whole))
    print("| method | channels | relative L2 distance | correlation | IoU of boxes |\n" + "|---" * 5 + "|")
    for (method, count), rows in found.items():
        print(
            f"| {method} | {count} | "
            + " | ".join(f"{median(column):.2f}" for column in zip(*rows, strict=True))
            + " |"
        )


if __name__ == "__main__":
    main()
