"""What several methods cost together, with shared forwards, against one after the other.

    python examples/benchmarks/together.py [--rounds 5] [--methods trt,cam,rollout]

The embedded model on one image of 352 pixels, one thread: CPU time of this process, both ways in turn, medians of all
rounds but the first; forwards are counted at the backbone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from trt_cam import create_explainer
from trt_cam.explainers import explain_together
from trt_cam.models.weights import load_model

METHODS = (
    "trt,cam,ts-cam,trt-free,raw-attention,last-attention,attention-product,rollout,gradient-rollout,"
    "transformer-attribution,grad-cam,grad-cam++,hires-cam,xgrad-cam,layer-cam,eigen-cam,eigen-grad-cam,token-cut,lost,pca"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="the first is not counted (default: 5)")
    parser.add_argument("--methods", default=METHODS, help="separated by commas (default: twenty)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    net, forwards = load_model(), [0]
    net.backbone.register_forward_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
    images = torch.randn(1, 3, 352, 352, generator=torch.Generator().manual_seed(0))
    methods = [create_explainer(name, net) for name in chosen.methods.split(",")]
    ways: dict[str, Callable[[], object]] = {
        "together": lambda: explain_together(methods, images),
        "one after the other": lambda: [explain(images) for explain in methods],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    passes: dict[str, int] = {}
    for _ in range(max(chosen.rounds, 2)):
        for way, run in ways.items():
            forwards[0], start = 0, time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
            passes[way] = forwards[0]
    print(f"| {len(methods)} methods | forwards | CPU seconds |\n|---|---|---|")
    for way in ways:
        print(f"| {way} | {passes[way]} | {statistics.median(seconds[way][1:]):.2f} |")


if __name__ == "__main__":
    main()
