"""``trt-cam train``: a localizer from labelled photos."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from typing import Any

from trt_cam.cli.options import classes_of, quieten
from trt_cam.cli.output import Counter, complain, say

DESCRIPTION = """
Train a localizer from image labels alone: no box is read. DIR is a folder with a folder of photos for each class, or a
data set of a known layout (`trt-cam data`). NAME is a timm transformer such as deit_small_patch16_224.

With --freeze-backbone the backbone is run once over the photos and only what is new is trained: minutes on a laptop.
Without it all is trained, by the paper's recipe if --preset says so; under torchrun by many processes, with the same
command. Kill it and run it again with --resume: it goes on where it was. The network is then in --out/model, for
`trt-cam localize --model`.
"""


def add(commands: Any) -> None:
    """Options of ``train``."""
    parser = commands.add_parser("train", help="a localizer from labelled photos", description=DESCRIPTION)
    parser.add_argument("--data", required=True, metavar="DIR", help="labelled photos")
    parser.add_argument("--kind", default="auto", help="of data set (default: by what lies in the folder)")
    parser.add_argument("--split", help="which part, where there are several (default: train)")
    parser.add_argument("--model", required=True, metavar="NAME", help="a timm name, or a trained folder to go on from")
    parser.add_argument("--from-scratch", action="store_true", help="new weights in place of timm's published ones")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="model, or a JSON file with its class of each of the data's: "
        "keep the model's classes and classifier (default: the data's classes, a new classifier)",
    )
    parser.add_argument("--method", default="trt", help="trt, ts-cam or cam (default: trt)")
    parser.add_argument("--joint", action="store_true", help="trt in one stage, by the sum of both losses (Eq. 2)")
    parser.add_argument("--freeze-backbone", action="store_true", help="train only what is new, from cached tokens")
    add_choice(parser)
    add_numbers(parser)
    add_machine(parser)
    parser.set_defaults(command=run)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """What the epoch that is kept is chosen by."""
    group = parser.add_argument_group("choice of the epoch", "of each stage, on photos that are not trained on")
    group.add_argument("--val", metavar="DIR", help="other photos to choose by (default: a share of the training's)")
    group.add_argument("--val-split", metavar="NAME", help="their split; alone: of the same data")
    group.add_argument("--val-share", type=float, metavar="P", help="of each class, in place of --val; 0: last epoch")
    group.add_argument(
        "--select",
        default="classification",
        help="classification (default), or boxes: more than labels, so it needs --val with "
        "boxes and is written into the model card",
    )


def add_numbers(parser: argparse.ArgumentParser) -> None:
    """A preset, and numbers in place of its own."""
    group = parser.add_argument_group("numbers", "each in place of the preset's")
    group.add_argument(
        "--preset",
        help="quick (for --freeze-backbone), full, or the authors' cub-224, cub-384, "
        "ilsvrc-224; with -paper at the end as the paper's text has it",
    )
    numbers: dict[str, tuple[Any, str, str]] = {
        "epochs": (int, "N", "of both stages, or of each: --epochs 8 4"),
        "lr": (float, "RATE", "of an update on --batch-size photos; of both stages, or of each"),
        "smoothing": (float, "P", "share of a label that is spread over all classes; of both stages, or of each"),
    }
    for name, (kind, metavar, text) in numbers.items():
        group.add_argument(f"--{name}", type=kind, nargs="+", metavar=metavar, help=text)
    for name, kind, metavar, text in NUMBERS:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)


NUMBERS: tuple[tuple[str, Any, str, str], ...] = (
    ("batch-size", int, "N", "photos of an update, over all processes: the same command trains the same anywhere"),
    ("accumulate", int, "N", "take a batch in N parts, to save memory"),
    ("size", int, "PIXELS", "of the model's input (default: its own)"),
    ("u", float, "SHARE", "of the attention that TRT's selection keeps: 0.6 to 0.65 on CUB, 0.95 on ImageNet"),
    ("optimizer", str, "NAME", "of timm's: adamw, adam, lamb, sgd, ..."),
    ("weight-decay", float, "X", "on matrices; none on biases, norms, position embedding and class token"),
    ("layer-decay", float, "X", "factor of the rate from a block to the one below it, such as 0.75"),
    ("schedule", str, "NAME", "cosine, constant, ..., or steps, the authors' rule"),
    ("warmup", int, "N", "epochs of growing rate at the start; not with steps"),
    ("min-lr", float, "RATE", "least of a schedule; not with steps"),
    ("drop-path", float, "P", "chance that a residual branch of the last block is left out"),
    ("clip", float, "NORM", "largest norm of the gradient; 1 tames most divergence"),
    ("ema", float, "X", "keep a moving average of the weights with this decay, such as 0.999"),
    ("mixup", float, "ALPHA", "mix photos and labels in pairs"),
    ("cutmix", float, "ALPHA", "the same with rectangles"),
    ("augment", str, "NAME", "none, flip, crop or timm, of photos while training"),
    ("views", int, "N", "with --freeze-backbone: augmented views of each photo in the cache, N times its disk"),
    ("precision", str, "NAME", "fp32, bf16, fp16, or auto, the faster of the first two with --freeze-backbone"),
    ("batch-norm", str, "NAME", "train or frozen, where a backbone has some"),
    ("seed", int, "N", "of new weights, split, order and augmentation"),
)
"""Options that are single numbers or names of ``Settings``."""


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Where and how it runs."""
    group = parser.add_argument_group("run")
    group.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    group.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    group.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one; under torchrun each its own)")
    group.add_argument("--sharing", default="ddp", help="ddp, or fsdp for a network too large for one GPU")
    group.add_argument("--threads", type=int, metavar="N", help="of one process on the CPU")
    group.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read photos")
    group.add_argument("--tensorboard", action="store_true", help="write its files too")


def run(chosen: argparse.Namespace) -> int:
    """Train; the figures of what was chosen at the end."""
    quieten()
    from trt_cam.runs import World
    from trt_cam.training import train

    found = train(
        chosen.data,
        chosen.model,
        chosen.method,
        out=chosen.out,
        preset=chosen.preset,
        freeze_backbone=chosen.freeze_backbone,
        joint=chosen.joint,
        kind=chosen.kind,
        split=chosen.split,
        classes=chosen.classes if chosen.classes in (None, "model") else classes_of(chosen.classes),
        val=chosen.val,
        val_split=chosen.val_split,
        select=chosen.select,
        pretrained=not chosen.from_scratch,
        sharing=chosen.sharing,
        device=chosen.device,
        threads=chosen.threads,
        workers=chosen.workers,
        resume=chosen.resume,
        tensorboard=chosen.tensorboard,
        command=shlex.join(["trt-cam", *chosen.words]),
        say=partial(complain, kind=""),
        progress=Counter("updates") if sys.stderr.isatty() else None,
        **changes(chosen),
    )
    if World.current().rank == 0:
        for stage, figures in found.metrics.items():
            epoch, named = f"{figures['epoch']:g}", [f"{name} {value:.4g}" for name, value in figures.items()]
            say(f"{stage}: epoch {epoch} was taken: {', '.join(named[2:])}")
        say(f"-> {found.folder / 'model'}")
    return 0


def changes(chosen: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given, by the names of ``Settings``."""
    names = [name.replace("-", "_") for name, *_ in NUMBERS] + ["epochs", "lr", "smoothing", "val_share"]
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    return {"batch" if name == "batch_size" else name: value for name, value in given.items()}
