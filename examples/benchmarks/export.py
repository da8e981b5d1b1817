"""The embedded model by PyTorch and by onnxruntime: CPU time of one photo from pixels to heat, one process, one thread.

    OMP_NUM_THREADS=1 python examples/benchmarks/export.py [--rounds 31] [--size 352]

Four ways are measured in turn, and a way's time is the median of its rounds: the network's plain forward, with neither
map nor refinement; logits and heat by PyTorch as `localize` makes them; and the exported file, with weights in float32
and in float16, run by onnxruntime. Reading and resizing the photo is in none of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

import trt_cam
from trt_cam.data.frames import frame_of
from trt_cam.explainers import create_explainer
from trt_cam.export import export_onnx
from trt_cam.models.weights import load_model
from trt_cam.results import input_heat

PHOTO = Path(trt_cam.__file__).parent / "assets" / "coffee.jpg"
Way = Callable[[], Any]


def session(path: Path) -> Any:
    """A file in onnxruntime, one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 3, 1, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ways(folder: Path, size: int) -> dict[str, Way]:
    """What is compared, by name."""
    net: Any = load_model()
    explain = create_explainer("trt", net)
    pixels = np.asarray(Image.open(PHOTO).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))[None]

    def images() -> torch.Tensor:
        return net.preprocessing.normalize(torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)) / 255)  # type: ignore[no-any-return]

    def plain() -> Any:
        with torch.no_grad():
            return net.backbone(images())

    def heat() -> Any:
        found = explain(images(), refine=net.config.get("refine"))
        return input_heat(found.evidence, frame_of((size, size), (size, size)))

    made = {half: export_onnx(None, folder / f"{half}.onnx", size=size, half=half) for half in (False, True)}
    for half, file in made.items():
        kind = "float16" if half else "float32"
        print(f"{kind}: {file.bytes / 1e6:.1f} MB, heat differs by {file.heat:.1g}, logits by {file.logits:.1g}")
    running = {half: session(file.path) for half, file in made.items()}
    return {
        "PyTorch, backbone alone": plain,
        "PyTorch, logits and heat": heat,
        "onnxruntime, float32 file": lambda: running[False].run(None, {"photo": pixels}),
        "onnxruntime, float16 file": lambda: running[True].run(None, {"photo": pixels}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=352, help="pixels of a side (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        compared = ways(Path(folder), options.size)
        seconds: dict[str, list[float]] = {name: [] for name in compared}
        for number in range(options.rounds + 3):  # the first three are for warming up
            for name, way in compared.items():
                start = time.process_time()
                way()
                if number >= 3:
                    seconds[name].append(time.process_time() - start)
    middle = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    for name, milliseconds in middle.items():
        print(f"{name:28} {milliseconds:7.1f} ms  {milliseconds / middle['PyTorch, logits and heat']:.2f}")


if __name__ == "__main__":
    main()
