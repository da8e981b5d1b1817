"""What an explanation costs beyond one plain forward: CPU time and memory, on one thread, against the bars.

    python examples/benchmarks/overhead.py [--rounds 9] [--only trt,rollout]
    python examples/benchmarks/overhead.py --channels [--rounds 3]

Time is CPU time of this process, all methods interleaved, each call divided by the mean of the plain no-grad forwards
before and after it; the median of all rounds but the first. Memory is the extra peak of a fresh process, the peak reset
after two plain forwards (Linux). Random weights: cost does not depend on them. ``--channels`` measures the methods that
try each of DeiT-S's 384 channels, on one image, in plain forwards of it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from trt_cam import TRTLocalizer, create_explainer

SETUPS = {
    "DeiT-S 224, b8": ("deit_small_patch16_224", 224, 8),
    "ViT-S/14 518, b1": ("vit_small_patch14_dinov2", 518, 1),
}
BARS = {  # time at DeiT-S, time at 518, MB at 518
    "raw-attention": (1.05, 1.05, 60),
    "ts-cam": (1.05, 1.05, 60),
    "cam": (1.05, 1.05, 60),
    "grad-cam": (1.15, 1.18, 75),
    "rollout": (1.15, 1.40, 110),
    "trt": (1.18, 1.20, 80),
    "trt-free": (1.18, 1.20, 80),
    "gradient-rollout": (2.4, 3.3, 400),
}
PEERS = ("pytorch-grad-cam", "torchcam")
CHANNELS = {  # method: the peer's name for it, bar in forwards or as a share of the peer's
    "ablation-cam": ("AblationCAM", "60 forwards"),
    "score-cam": ("ScoreCAM", "1.05 of the peer"),
}


def build(setup: str) -> tuple[nn.Module, Tensor]:
    name, side, batch = SETUPS[setup]
    torch.manual_seed(0)
    size = {} if side == 224 else {"img_size": side}
    model = timm.create_model(name, num_classes=1000, **size).eval()
    nn.init.trunc_normal_(model.head.weight, std=0.02)
    return model, torch.randn(batch, 3, side, side)


def patches_on(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """What peers need told: tokens (B, 1 + N, D) as a map (B, D, Gh, Gw)."""
    return lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def case(method: str, model: nn.Module, images: Tensor) -> Callable[[], object]:
    """One explanation of class 1, its construction included."""
    patches = patches_on(model.patch_embed.dynamic_feat_size(images.shape[-2:]))
    target = [1] * len(images)
    if method == "pytorch-grad-cam":
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        def theirs() -> object:
            with GradCAM(model, [model.blocks[-1].norm1], reshape_transform=patches) as cam:
                return cam(images, [ClassifierOutputTarget(1)] * len(images))

        return theirs
    if method == "torchcam":
        from torchcam.methods import GradCAM as TorchGradCAM

        def theirs() -> object:
            with TorchGradCAM(model, model.blocks[-1].norm1, reshape_transform=patches) as cam:
                return cam(1, model(images))

        return theirs
    net = TRTLocalizer(model).eval() if method == "trt" else model
    return lambda: create_explainer(method, net)(images, target)


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def times(setup: str, methods: list[str], rounds: int) -> dict[str, float]:
    model, images = build(setup)
    cases = {method: case(method, model, images) for method in methods}

    def plain() -> object:
        with torch.no_grad():
            return model(images)

    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(rounds + 1):
        before = seconds(plain)
        for method, run in cases.items():
            gc.collect()
            took, after = seconds(run), seconds(plain)
            ratios[method].append(2 * took / (before + after))
            before = after
    return {method: statistics.median(values[1:]) for method, values in ratios.items()}


def megabytes(setup: str, method: str) -> float:
    """Extra peak of the first explanation over the resident size of a process that has run the model."""
    model, images = build(setup)
    run = case(method, model, images)
    with torch.no_grad():
        model(images), model(images)
    gc.collect()

    def kilobytes(field: str) -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
        return int(line.split()[1])

    resident = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return (kilobytes("VmHWM") - resident) / 1024


def channel_case(method: str, model: nn.Module, images: Tensor) -> Callable[[], object]:
    """One explanation of class 1 by a method that tries all channels, ours or pytorch-grad-cam's."""
    if method in CHANNELS:
        return case(method, model, images)
    import pytorch_grad_cam
    from pytorch_grad_cam.ablation_layer import AblationLayerVit
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    patches = patches_on(model.patch_embed.dynamic_feat_size(images.shape[-2:]))

    def theirs() -> object:
        more = {"ablation_layer": AblationLayerVit()} if method == "AblationCAM" else {}
        kind = getattr(pytorch_grad_cam, method)
        with kind(model, [model.blocks[-1].norm1], reshape_transform=patches, **more) as cam:
            return cam(images, [ClassifierOutputTarget(1)])

    return theirs


def channel_table(rounds: int) -> None:
    """Methods that try all channels, in plain forwards of the same image."""
    model, images = build("DeiT-S 224, b8")
    images = images[:1]
    peers = [peer for peer, _ in CHANNELS.values()] if installed("pytorch-grad-cam") else []
    cases = {method: channel_case(method, model, images) for method in [*CHANNELS, *peers]}

    def plain() -> object:
        with torch.no_grad():
            return [model(images) for _ in range(20)]

    took: dict[str, list[float]] = {method: [] for method in cases}
    for _ in range(rounds):
        for method, run in cases.items():
            before = seconds(plain)
            spent = seconds(run)
            took[method].append(2 * 20 * spent / (before + seconds(plain)))
    median = {method: statistics.median(values) for method, values in took.items()}
    print("| method | forwards | pytorch-grad-cam's | bar |\n" + "|---" * 4 + "|")
    for method, (peer, bar) in CHANNELS.items():
        theirs = f"{median[peer]:.0f}" if peer in median else "-"
        print(f"| {method} | {median[method]:.0f} | {theirs} | {bar} |")


def installed(peer: str) -> bool:
    from importlib.util import find_spec

    return find_spec({"pytorch-grad-cam": "pytorch_grad_cam"}.get(peer, peer)) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=None, help="9, or 3 with --channels")
    parser.add_argument("--channels", action="store_true", help="the methods that try all channels, in forwards")
    parser.add_argument("--only", default="", help="methods, separated by commas")
    parser.add_argument("--memory-of", nargs=2, metavar=("SETUP", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:
        print(megabytes(*args.memory_of))
        return
    if args.channels:
        channel_table(args.rounds or 3)
        return
    methods = [name for name in [*BARS, *filter(installed, PEERS)] if not args.only or name in args.only.split(",")]
    found = {setup: times(setup, methods, args.rounds or 9) for setup in SETUPS}
    print("| method | DeiT-S 224, b8 | bar | ViT-S/14 518, b1 | bar | extra MB at 518 | bar |\n" + "|---" * 7 + "|")
    for method in methods:
        command = [sys.executable, __file__, "--memory-of", list(SETUPS)[1], method]
        extra = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours = [f"{found[setup][method]:.2f}" for setup in SETUPS] + [f"{extra:.0f}"]
        bars = [str(bar) for bar in BARS.get(method, ("-",) * 3)]
        print(f"| {method} | " + " | ".join(f"{a} | {b}" for a, b in zip(ours, bars, strict=True)) + " |")


if __name__ == "__main__":
    main()
