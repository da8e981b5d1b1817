"""``trt-cam evaluate``: figures of methods on a data set with boxes or masks, by a published protocol."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_cam.cli.options import (
    add_classes,
    add_dataset,
    add_methods,
    add_model,
    add_refine,
    add_run,
    choice,
    classes_of,
    exclude,
    keywords,
    quieten,
    refinement,
)
from trt_cam.cli.output import FAILURE, Counter, check_folder, complain, on_terminal, say
from trt_cam.cli.parser import add_command
from trt_cam.cli.values import COUNT, INSIDE, SHARE, Or, filled
from trt_cam.errors import InputError

if TYPE_CHECKING:
    from trt_cam.evaluation import Evaluation


STUDIES = ("selection", "u", "re-attention", "tables")
PROTOCOLS = ("maxboxacc", "maxboxacc_v2", "v2_val_threshold", "pxap", "tscam", "trt_fixed_v2")
TEXT = """
Measure how well methods localize: explain every photo of a data set for its true class, and compare with its
boxes or masks by a published protocol. Prints a table in percent, and writes to --out metrics.json,
metrics.csv and photos.jsonl (a line for each photo); `trt-cam report` makes a page of them.

Kill it and run it again with --resume, or run it under torchrun: the figures are the same.
"""
EXAMPLES = """
trt-cam evaluate DATA/CUB_200_2011 --split test --methods trt,cam,rollout --out runs/cub
trt-cam evaluate DATA/OpenImages --split test --methods all --out runs/openimages
trt-cam evaluate DATA/ilsvrc-10 --part even --threshold from-val --val-part odd --out runs/half
torchrun --nproc-per-node 8 -m trt_cam evaluate DATA/ILSVRC --split val --device cuda --out runs/ilsvrc
"""


def add(commands: Any) -> None:
    """Options of ``evaluate``."""
    parser = add_command(
        *(commands, "evaluate", "measure how well methods localize, on a data set with boxes or masks"),
        usage="DIR --out DIR [options]",
        text=TEXT,
        examples=EXAMPLES,
        page="docs/evaluation.md",
    )
    parser.add_argument("data", type=filled, metavar="DIR", help="data set in the layout that it is distributed in")
    add_run(parser)
    data = parser.add_argument_group("data")
    add_dataset(data)
    choice(data, "--part", ("odd", "even"), "only photos with such a number in their file's name (default: all)")
    data.add_argument("--limit", type=COUNT, metavar="N", help="only the first N photos (default: all)")
    add_classes(data)
    methods = parser.add_argument_group("methods")
    add_methods(methods, None, "; all: those that fit the model (default: auto)")
    choice(methods, "--study", STUDIES, "the methods of a study of the paper's, in place of --methods")
    add_refine(methods)
    add_model(parser.add_argument_group("model"))
    add_measure(parser)
    parser.set_defaults(command=run)


def add_measure(parser: argparse.ArgumentParser) -> None:
    """What is measured, at which thresholds."""
    group = parser.add_argument_group("protocol and thresholds")
    choice(
        *(group, "--protocol", PROTOCOLS),
        "whose figures (default: maxboxacc_v2 for a data set with boxes, pxap for one with masks)",
    )
    group.add_argument(
        "--threshold",
        type=Or(("best", "from-val"), SHARE),
        metavar="SHARE",
        help="at which share of a map's maximum the table is: a number in [0, 1), best (on these photos), or "
        "from-val (best on other photos) (default: as the protocol publishes)",
    )
    group.add_argument(
        "--interval", type=INSIDE, default=0.01, metavar="STEP", help="between the thresholds that are tried"
    )
    group.add_argument(
        "--val", type=filled, metavar="DIR", help="for from-val: data set to choose on (default: the same one)"
    )
    group.add_argument("--val-split", type=filled, metavar="NAME", help="for from-val: its split")
    choice(group, "--val-part", ("odd", "even"), "for from-val: only photos with such a number")


def run(chosen: argparse.Namespace) -> int:
    """Evaluate, write the files, print the table."""
    quieten()
    exclude(chosen, "--study", "--methods", "a study has its own methods")
    exclude(chosen, "--study", "--set", "a study has its own methods")
    check_thresholds(chosen)
    check_folder(Path(chosen.out))
    from trt_cam.data.catalog import load_dataset

    more = keywords(chosen.data_option)
    data, others = load_dataset(chosen.data, chosen.kind, chosen.split, **more), None
    if chosen.val or chosen.val_split or chosen.val_part:
        others = load_dataset(chosen.val or chosen.data, chosen.kind, chosen.val_split or chosen.split, **more)
    from trt_cam.evaluation.tables import as_markdown, shown, write
    from trt_cam.runs import World

    out, val = Path(chosen.out), None
    if others is not None:
        out, val = out / "run", evaluated(chosen, others, chosen.val_part, out / "val")
    found = evaluated(chosen, data, chosen.part, out)
    if World.current().rank > 0:  # process 0 reports; torchrun would end it at the first failure of another
        return 0
    rows = write(found, threshold=chosen.threshold, val=val)
    say(as_markdown(rows, shown(rows, chosen.threshold)))
    if chosen.study == "tables":
        from trt_cam.report.published import as_markdown as printed

        say(f"\n{printed()}\n")
    say(f"-> {found.run.folder}")
    for name, why in found.refused.items():
        complain(why, kind=f"{name} left out: ")
    for name, reason in found.failures:
        complain(f"{name}: {reason}")
    return FAILURE if found.failures else 0


def check_thresholds(chosen: argparse.Namespace) -> None:
    """Refuse a threshold that would not be there in the end."""
    if chosen.threshold == "from-val" and not (chosen.val or chosen.val_split or chosen.val_part):
        raise InputError(
            "--threshold from-val needs other photos to choose on, got none; give --val, --val-split or --val-part"
        )
    if isinstance(chosen.threshold, float):
        steps = chosen.threshold / chosen.interval
        if abs(steps - round(steps)) > 1e-6:
            raise InputError(
                f"--threshold needs a multiple of --interval, {chosen.interval:g}, got {chosen.threshold:g}; "
                "give another, or a smaller --interval"
            )


def evaluated(chosen: argparse.Namespace, data: Any, part: str | None, out: Path) -> Evaluation:
    """One split."""
    from trt_cam.evaluation import evaluate
    from trt_cam.evaluation.studies import STUDIES
    from trt_cam.listing import methods_with_settings

    return evaluate(
        data,
        model=chosen.model,
        methods=STUDIES[chosen.study]()
        if chosen.study
        else methods_with_settings(chosen.methods or ["auto"], chosen.set),
        refine=refinement(chosen),
        protocol=chosen.protocol,
        interval=chosen.interval,
        part=part,
        classes=classes_of(chosen.classes),
        size=chosen.size,
        device=chosen.device,
        batch_size=chosen.batch_size,
        threads=chosen.threads,
        workers=chosen.workers,
        limit=chosen.limit,
        out=out,
        resume=chosen.resume,
        progress=Counter() if on_terminal(sys.stderr) else None,
    )
