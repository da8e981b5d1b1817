"""``trt-cam train``: a localizer from labelled photos."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from trt_cam.cli.options import choice, classes_of, exclude, quieten
from trt_cam.cli.output import Counter, check_folder, complain, on_terminal, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import COUNT, INSIDE, KEPT, LEAST_0, PIXELS, POSITIVE, SHARE, WHOLE, Number, filled
from trt_cam.errors import InputError

METHODS = ("trt", "ts-cam", "cam")
PRESETS = ("quick", "full", "cub-224", "cub-384", "ilsvrc-224", "cub-224-paper", "ilsvrc-224-paper")
TEXT = """
Train a localizer from photos of which only the class is known: no box is read. The photos lie in a folder for
each class, or as a data set of a known layout.

With --freeze-backbone the backbone is run once over the photos and only what is new is trained: minutes on a
laptop. Without it all is trained, by the paper's recipe if --preset says so; under torchrun by many processes,
with the same command. Kill it and run it again with --resume: it goes on where it was.

Writes the network to --out/model, for --model of the other commands, with tables, heat maps of each epoch and a
model card; prints what each stage reached on photos that were not trained on.
"""
EXAMPLES = """
trt-cam train --data my_photos --model deit_small_patch16_224 --freeze-backbone --out runs/mine
trt-cam localize photo.jpg --model runs/mine/model
trt-cam train --data DATA/CUB_200_2011 --model deit_base_patch16_224 --preset cub-224 --out runs/cub
trt-cam train --data my_photos --model runs/mine/model --lr 1e-5 --epochs 4 2 --out runs/more
"""


def add(commands: Any) -> None:
    """Options of ``train``."""
    parser = add_command(
        *(commands, "train", "train a localizer from labelled photos"),
        usage="--data DIR --model NAME --out DIR [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/training.md",
    )
    add_run(parser)
    add_data(parser)
    add_network(parser)
    add_choice(parser)
    add_numbers(parser)
    parser.set_defaults(command=run)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Where and how it runs."""
    group = parser.add_argument_group("run")
    group.add_argument("--out", required=True, type=filled, metavar="DIR", help="folder of the run: new, or empty")
    group.add_argument("--resume", action="store_true", help="go on with the run in --out that was cut short")
    group.add_argument(
        "--device", type=filled, help="cpu, cuda, ... (default: a GPU if there is one; under torchrun one each)"
    )
    choice(
        *(group, "--sharing", ("ddp", "fsdp")),
        "of the network under torchrun: each process holds all of it (ddp), or a part, for what is too large for one "
        "GPU (fsdp) (default: ddp)",
        "ddp",
    )
    group.add_argument("--threads", type=COUNT, metavar="N", help="of one process on the CPU (default: PyTorch's)")
    group.add_argument("--workers", type=WHOLE, default=0, metavar="N", help="processes that read photos")
    group.add_argument(
        "--tensorboard", action="store_true", help="write its files too; needs pip install 'trt-cam[train]'"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """What is trained on."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", required=True, type=filled, metavar="DIR", help="labelled photos")
    group.add_argument(
        "--kind", type=filled, default="auto", help="layout, see docs/datasets.md; auto looks at what lies in DIR"
    )
    group.add_argument(
        "--split", type=filled, metavar="NAME", help="which part (default: the only one, or train of several)"
    )
    group.add_argument(
        "--classes",
        type=filled,
        metavar="FILE",
        help="keep the model's classes and its classifier: model, where the data's classes have equal names, or a file "
        "with a JSON object of the model's class of each of the data's (default: the data's classes, a new classifier)",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """What is trained."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model",
        required=True,
        type=filled,
        metavar="NAME",
        help="a timm transformer to begin with (`trt-cam models`), or a trained folder to go on from",
    )
    group.add_argument("--from-scratch", action="store_true", help="new weights in place of timm's published ones")
    choice(group, "--method", METHODS, "what to make of it (default: trt)", "trt")
    group.add_argument(
        "--joint", action="store_true", help="trt in one stage, by the sum of both losses (Eq. 2), in place of two"
    )
    group.add_argument(
        "--freeze-backbone", action="store_true", help="train only what is new, from what the backbone gave once"
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """What the epoch that is kept is chosen by."""
    group = parser.add_argument_group("choice of the epoch", "of each stage, on photos that are not trained on")
    group.add_argument(
        "--val", type=filled, metavar="DIR", help="photos to choose by (default: a share of the training's)"
    )
    group.add_argument("--val-split", type=filled, metavar="NAME", help="their split; alone: of the same data")
    group.add_argument(
        "--val-share",
        type=Number(float, "a share from 0 to 0.5", lambda value: 0 <= value <= 0.5),
        metavar="SHARE",
        help="of each class's photos, in place of --val; 0 takes the last epoch (default: 0.1)",
    )
    choice(
        *(group, "--select", ("classification", "boxes")),
        "by what: boxes are more than labels, so they need --val with boxes and are written into the model card "
        "(default: classification)",
        "classification",
    )


def add_numbers(parser: argparse.ArgumentParser) -> None:
    """A preset, and numbers in place of its own."""
    group = parser.add_argument_group("numbers", "docs/training.md has those of each preset")
    choice(
        *(group, "--preset", PRESETS),
        "all of the numbers below: ours for a frozen backbone (quick) or for all (full), the authors' code's, or the "
        "paper's text's (default: quick with --freeze-backbone, else full)",
    )
    for name, kind, metavar, text in OF_STAGES:
        told = f"{text}; one for both stages, or one for each"
        group.add_argument(f"--{name}", type=kind, nargs="+", metavar=metavar, help=told)
    for name, kind, metavar, text in NUMBERS:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    for name, words, text in NAMES:
        choice(group, f"--{name}", words, text)


OF_STAGES: tuple[tuple[str, Any, str, str], ...] = (
    ("epochs", COUNT, "N", "times that all photos are seen"),
    ("lr", POSITIVE, "RATE", "learning rate of an update on --batch-size photos"),
    ("smoothing", SHARE, "SHARE", "of a label that is spread over all classes"),
)
"""Options that are numbers of ``Stage``."""

NUMBERS: tuple[tuple[str, Any, str, str], ...] = (
    ("batch-size", COUNT, "N", "photos of an update, over all processes: the same command trains the same anywhere"),
    ("accumulate", COUNT, "N", "take a batch in N parts, to save memory"),
    (
        "size",
        PIXELS,
        "PIXELS",
        "side of the square that photos are resized to (default: the preset's, else the model's own)",
    ),
    ("u", KEPT, "SHARE", "of the attention that TRT's selection keeps: 0.6 to 0.65 on CUB, 0.95 on ImageNet"),
    ("optimizer", filled, "NAME", "of timm's: adamw, adam, lamb, sgd, ..."),
    ("weight-decay", LEAST_0, "X", "on matrices; none on biases, norms, position embedding and class token"),
    ("layer-decay", KEPT, "X", "factor of the rate from a block to the one below it, such as 0.75"),
    ("warmup", WHOLE, "N", "epochs of growing rate at the start; not with --schedule steps"),
    ("min-lr", LEAST_0, "RATE", "least of a schedule; not with --schedule steps"),
    ("drop-path", SHARE, "P", "chance that a residual branch of the last block is left out"),
    ("clip", POSITIVE, "NORM", "largest norm of the gradient; 1 tames most divergence"),
    ("ema", INSIDE, "X", "keep a moving average of the weights with this decay, such as 0.999"),
    ("mixup", LEAST_0, "ALPHA", "mix photos and labels in pairs; 0 is off"),
    ("cutmix", LEAST_0, "ALPHA", "the same with rectangles; 0 is off"),
    ("views", COUNT, "N", "with --freeze-backbone: augmented views of each photo in the cache, N times its disk"),
    ("seed", WHOLE, "N", "of new weights, split, order and augmentation"),
)
"""Options that are single numbers of ``Settings``."""

NAMES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "schedule",
        ("steps", "cosine", "tanh", "poly", "constant", "step", "wsd", "rsqrt"),
        "how the rate falls: steps is the authors' rule, the others are timm's",
    ),
    ("augment", ("none", "flip", "crop", "timm"), "of photos while training"),
    (
        "precision",
        ("fp32", "bf16", "fp16", "auto"),
        "of the forward; auto is the faster of the first two with --freeze-backbone, else fp32",
    ),
    ("batch-norm", ("train", "frozen"), "statistics of batch norms, where a backbone has some: learnt, or left"),
)
"""Options that are words of ``Settings``."""


def run(chosen: argparse.Namespace) -> int:
    """Train; the figures of what was chosen at the end."""
    quieten()
    check_together(chosen)
    check_folder(Path(chosen.out))
    classes = chosen.classes if chosen.classes in (None, "model") else classes_of(chosen.classes)
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
        classes=classes,
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
        progress=Counter("updates") if on_terminal(sys.stderr) else None,
        **changes(chosen),
    )
    if World.current().rank == 0:
        for stage, figures in found.metrics.items():
            epoch, named = f"{figures['epoch']:g}", [f"{name} {value:.4g}" for name, value in figures.items()]
            say(f"{stage}: epoch {epoch} was taken: {', '.join(named[2:])}")
        say(f"-> {found.folder / 'model'}")
    return 0


def check_together(chosen: argparse.Namespace) -> None:
    """Refuse options of which one would do nothing."""
    for other in ("--val", "--val-split"):
        exclude(chosen, "--val-share", other, "choose by a share of the training photos, or by others")
    if chosen.schedule == "steps":
        for other in ("--warmup", "--min-lr"):
            exclude(chosen, "--schedule", other, "the authors' rule has neither warm-up nor least rate")
    if chosen.views is not None and not chosen.freeze_backbone:
        raise InputError("--views needs --freeze-backbone, whose cache holds them; without it every epoch draws anew")


def changes(chosen: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given, by the names of ``Settings``."""
    options = [name for name, *_ in (*OF_STAGES, *NUMBERS)] + [name for name, *_ in NAMES] + ["val-share"]
    names = [name.replace("-", "_") for name in options]
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    return {"batch" if name == "batch_size" else name: value for name, value in given.items()}
