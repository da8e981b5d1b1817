"""Every method in one table: what it needs and says, its passes, and what it costs beside a plain forward.

    python examples/method_table.py [--rounds 9 --write docs/methods.md]

Passes are counted on a DeiT-S of two blocks and four patches: width, input and settings alone decide them. Cost is that
of `benchmarks/overhead.py`; where there are a hundred forwards or more, in brackets, it is their number.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from benchmarks import overhead
from torch import Tensor

from trt_cam import TRTLocalizer, create_explainer, list_explainers
from trt_cam.explainers import get_explainer

HEAD = ("method", "needs", "for a class", "values", "forwards", "backwards", "cost", "MB")
DEIT, LARGE = overhead.SETUPS
NOISE = 75  # MB by which runs of one method differ


def passes(method: str) -> tuple[int, int, int, Tensor]:
    """Forwards of an image, how often its last block or a copy runs beyond them, backward passes, and the map."""
    torch.manual_seed(0)
    model: Any = timm.create_model("deit_small_patch16_224", depth=2, patch_size=112, num_classes=7).eval()
    ran = [0, 0]
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, args, i=index: ran.__setitem__(i, ran[i] + len(args[0])))
    net = TRTLocalizer(model).eval() if method == "trt" else model
    with mock.patch.object(torch.autograd, "grad", wraps=torch.autograd.grad) as backward:
        grid = create_explainer(method, net)(torch.randn(1, 3, 224, 224), 1).grid
    return ran[0], ran[1] - ran[0], backward.call_count, grid


def row(method: str, found: tuple[int, int, int, Tensor], cost: float | None, megabytes: str) -> str:
    """What the table says of one method."""
    kind, (forwards, tails, backwards, grid) = get_explainer(method), found
    values = "signed, > 0 counts" if kind.positive else "signed" if (grid < 0).any() else "at least 0"
    more = [f"{forwards - 1:,}"] * (forwards > 1) + [f"{tails:,} last"] * (tails > 0)
    told = f"({forwards:,})" if forwards >= 100 else f"{cost:.{0 if cost >= 10 else 2}f}" if cost else ""
    asked = "yes" if kind.class_specific else "no"
    cells = (f"`{method}`", ", ".join(sorted(kind.requires)), asked, values, " + ".join(["1", *more]))
    return f"| {' | '.join(cells)} | {backwards or '-'} | {told} | {megabytes} |"


def memory(method: str) -> str:
    """Extra peak of a fresh process, as `benchmarks/overhead.py` measures it."""
    command = [sys.executable, overhead.__file__, "--memory-of", LARGE, method]
    found = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return f"{found:.0f}" if found > NOISE else f"< {NOISE}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="of measuring; 0 for a table without cost")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {method: passes(method) for method in list_explainers()}
    timed = [method for method, (forwards, *_) in found.items() if forwards < 100 and args.rounds]
    cost = overhead.times(DEIT, timed, args.rounds) if timed else {}
    rows = [row(name, found[name], cost.get(name), memory(name) if name in cost else "") for name in found]
    table = "\n".join([f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *rows])
    print(table)
    if args.write:
        before, _, after = args.write.read_text(encoding="utf-8").partition(f"| {HEAD[0]} | {HEAD[1]} |")
        args.write.write_text("".join([before, table, "\n\n", after.partition("\n\n")[2]]), encoding="utf-8")


if __name__ == "__main__":
    main()
